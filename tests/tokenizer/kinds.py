"""A tokenizer of every kind that Sheaf reads, as published models have them, trained small."""
import functools

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from texts import training_text

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
QWEN35 = (CONTRACTIONS
          + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CONTRACTIONS
         + r"?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + CONTRACTIONS
         + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEKKEN = O200K.replace(CONTRACTIONS + "?", "").replace("{1,3}", "")
DEEPSEEK3 = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
             "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
             "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
DEEPSEEK2 = ["[\r\n]", r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽ]+",
             r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", r"[一-龥ࠀ-一가-퟿]+"]
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")


def added(*flags):
    """Tokens with every flag; normalized ones are matched after the normaliser."""
    return [AddedToken("<|endoftext|>", special=True, normalized=False), AddedToken("<|im_start|>", special=True, normalized=False),
            AddedToken("[MASK]", special=True, lstrip=True, normalized=False), AddedToken("<strip>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("word", single_word=True, normalized=False), AddedToken("Ünorm", normalized=True),
            AddedToken("<|fim middle|>", special=True, normalized=True), *flags]


def trained(tokenizer, size=900, alphabet=(), tokens=(), **options):
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=list(alphabet), special_tokens=list(tokens), show_progress=False, **options)
    tokenizer.train_from_iterator(training_text(), trainer)
    return tokenizer


def byte_level(splits, normalizer=None, extra=(), ignore_merges=False, prefix_space=False, behavior="isolated", invert=False, digits=None):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    steps = [pre_tokenizers.Split(Regex(p), behavior, invert) for p in splits]
    if digits is not None:
        steps.append(pre_tokenizers.Digits(individual_digits=digits))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=not splits))
    tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    trained(tokenizer, alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.add_tokens(added(*extra))
    return tokenizer


def llama3():
    tokenizer = byte_level([LLAMA3], ignore_merges=True)
    start = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A <|endoftext|>:1 $B:1", special_tokens=[("<|endoftext|>", start)])])
    return tokenizer


def byte_fallback(normalizer=None, pre_tokenizer=None, decoder=None, fallback=True, **options):
    tokens = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if fallback else [])
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=fallback))
    # Training sees words, as SentencePiece does: tokens do not cross spaces.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    trained(tokenizer, size=1400, tokens=tokens, limit_alphabet=150, **options)
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoder or decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.add_tokens(added())
    return tokenizer


LLAMA2 = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
SPACE_MERGED = pre_tokenizers.Split(" ", "merged_with_previous")


def metaspace(scheme, split):
    return lambda: byte_fallback(None, pre_tokenizers.Metaspace("▁", scheme, split), decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace("▁", scheme)]))


def clip():
    """Suffixes of words, and a lower-casing, cleaning normaliser."""
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(
        Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("</w>", " ")])
    trained(tokenizer, alphabet=pre_tokenizers.ByteLevel.alphabet(), tokens=["<|endoftext|>"], end_of_word_suffix="</w>")
    tokenizer.add_tokens(added())
    return tokenizer


def subwords():
    """Prefixes inside words, unknown characters one by one."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFKD()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    trained(tokenizer, tokens=["[UNK]"], continuing_subword_prefix="##", limit_alphabet=90)
    return tokenizer


def behavior(name, invert, pattern=Regex(r"[a-m]+|\d")):
    return lambda: plain(pre_tokenizers.Split(pattern, name, invert))


def plain(pre_tokenizer, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    return trained(tokenizer, size=600)


KINDS = {
    "gpt2": lambda: byte_level([]),
    "roberta": lambda: byte_level([], prefix_space=True),
    "llama3": llama3,
    "qwen2": lambda: byte_level([QWEN2], normalizers.NFC()),
    "qwen35": lambda: byte_level([QWEN35], normalizers.NFC()),
    "deepseek3": lambda: byte_level(DEEPSEEK3, normalizers.Sequence([])),
    "deepseek2": lambda: byte_level(DEEPSEEK2, digits=True),
    "o200k": lambda: byte_level([O200K], ignore_merges=True),
    "tekken": lambda: byte_level([TEKKEN], ignore_merges=True),
    "olmo": lambda: byte_level([LLAMA3], behavior="removed", invert=True, extra=[AddedToken("  ", normalized=False)]),
    "cl100k": lambda: byte_level([CL100K], normalizers.NFKC()),
    "starcoder": lambda: byte_level([], digits=True, prefix_space=True),
    "llama2": lambda: byte_fallback(LLAMA2),
    "gemma": lambda: byte_fallback(normalizers.Replace(" ", "▁"), SPACE_MERGED),
    "unknown": lambda: byte_fallback(LLAMA2, fallback=False),
    "metaspace_first": metaspace("first", False),
    "metaspace_always": metaspace("always", True),
    "metaspace_never": metaspace("never", True),
    "clip": clip,
    "subwords": subwords,
    "removed": behavior("removed", False),
    "merged_with_previous": behavior("merged_with_previous", False),
    "merged_with_next": behavior("merged_with_next", False),
    "contiguous": behavior("contiguous", False),
    "contiguous_inverted": behavior("contiguous", True),
    "previous_inverted": behavior("merged_with_previous", True),
    "next_inverted": behavior("merged_with_next", True, "e "),
    "digits": lambda: plain(pre_tokenizers.Sequence([pre_tokenizers.Digits(False), pre_tokenizers.Metaspace("_", "first")]),
                            normalizers.Sequence([normalizers.Strip(left=True, right=False), normalizers.NFD()])),
    "empty_matches": behavior("isolated", False, Regex(r"(?=[A-Z])|\d(?<=[13579])(?=[0-4])|^[A-Z]")),
}
