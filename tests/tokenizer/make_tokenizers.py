"""Trains a small tokenizer of every kind with HuggingFace `tokenizers` and writes what it makes of nasty text:

    make_tokenizers.py FOLDER [RANDOM]

FOLDER/NAME/tokenizer.json and FOLDER/NAME/cases: numbers are little-endian uint32, a text is its size and its UTF-8, ids are their count
and the ids. A case is: text, ids, ids with the post-processor, decoded text, decoded text without special tokens. With RANDOM: that many
random strings in place of the fixed texts. Without: returns at once if up to date.
"""
import hashlib
import json
import pathlib
import random
import shutil
import struct
import sys
from importlib.metadata import version

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from kinds import KINDS
from texts import ALPHABET, SPECIALS, TEXTS, random_text


def text_bytes(text):
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def id_bytes(ids):
    return struct.pack(f"<I{len(ids)}I", len(ids), *ids)


def write_cases(tokenizer, texts, path):
    with open(path, "wb") as out:
        for text in texts:
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            full = tokenizer.encode(text).ids
            out.write(text_bytes(text) + id_bytes(plain) + id_bytes(full))
            out.write(text_bytes(tokenizer.decode(plain, skip_special_tokens=False)))
            out.write(text_bytes(tokenizer.decode(full, skip_special_tokens=True)))


def main():
    target = pathlib.Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    here = pathlib.Path(__file__).parent
    key = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(here.glob("*.py"))) + version("tokenizers").encode()).hexdigest()
    stamp = target / "stamp"
    if not count and stamp.exists() and stamp.read_text() == key:
        return
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    rng = random.Random(count)
    for name, make in KINDS.items():
        (fresh / name).mkdir(parents=True)
        tokenizer = make()
        tokenizer.save(str(fresh / name / "tokenizer.json"))
        tokenizer = type(tokenizer).from_file(str(fresh / name / "tokenizer.json"))    # added tokens are normalised when they are read
        texts = TEXTS if not count else [random_text(rng) for _ in range(count // len(KINDS) + 1)]
        write_cases(tokenizer, texts, fresh / name / "cases")
    # Which characters the classes of patterns have, as ranges; and the normal forms of every character.
    from classes import write_tables
    if not count:
        write_tables(fresh)
    (fresh / "stamp").write_text(key)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


main()
