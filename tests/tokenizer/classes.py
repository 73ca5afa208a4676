"""What `tokenizers` thinks of every character: its classes in patterns, its normal forms."""
import struct
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

CLASSES = [r"\s", r"\S", r"\d", r"\D", r"\w", r"\W", ".", r"[^\s\p{L}\p{N}]", r"[^\r\n\p{L}\p{N}]", r"[^\S\n]", r"\P{L}", "(?i:s)", "(?i:k)"] + [
    rf"\p{{{c}}}" for c in "L Lu Ll Lt Lm Lo M Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp".split()]
FORMS = {"NFC": normalizers.NFC(), "NFD": normalizers.NFD(), "NFKC": normalizers.NFKC(), "NFKD": normalizers.NFKD(),
         "Lowercase": normalizers.Lowercase()}


def characters():
    """All that Unicode 16 assigns, private use aside."""
    return (chr(c) for c in (*range(0xD800), *range(0xE000, 0x32400), *range(0xE0000, 0xE0200)))


def write_tables(folder):
    # classes: lines "pattern<TAB>first last first last ..."
    everything = "".join(characters())
    with open(folder / "classes", "w") as out:
        for pattern in CLASSES:
            ends = []
            for hit in pre_tokenizers.Split(Regex(pattern + "+"), "removed", True).pre_tokenize_str(everything):
                ends += [ord(hit[0][0]), ord(hit[0][-1])]
            out.write(pattern + "\t" + " ".join(map(str, ends)) + "\n")
    # forms/NAME: for every character that has one: size, text, size, result; the text is 'a', the character, two marks
    (folder / "forms").mkdir()
    for name, form in FORMS.items():
        with open(folder / "forms" / name, "wb") as out:
            for c in characters():
                if 0x3400 <= ord(c) < 0xA000 or 0xAC80 <= ord(c) < 0xD800 or 0x17000 <= ord(c) < 0x18D00 or 0x20000 <= ord(c) < 0x2F800:
                    continue    # long runs of one kind
                text = "a" + c + "\u0323\u0301"
                made = form.normalize_str(text)
                if made != "a" + c + "\u0323\u0301" or unicodedata.combining(c) or unicodedata.decomposition(c):
                    for t in (text, made):
                        out.write(struct.pack("<I", len(t.encode())) + t.encode())
