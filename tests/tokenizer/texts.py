"""Text that tokenizers get wrong, and text to train on."""
import pathlib

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<s>", "</s>", "[MASK]", "<strip>", "word", "Ünorm", "<|fim middle|>", "  "]

TEXTS = [
    "", " ", "  ", "\n", "\n\n", "\r\n", "\t", "a", " a", "a ", "  a  b   c    ",
    "Hello world! It's DON'T we'll I'VE you're he'd 'S 'Re ''s 'ſ 'K can't",
    "The year 2024 had 366 days; 1234567890 and 3.14159, 1,000,000 and ١٢٣ ४५६ ⅷ ½ ² ① 𝟘𝟙",
    "def f(x):\n    return {\n        'a': [1, 2, 3],\n\t\t'b': x ** 2  # comment\n    }\n\n\nclass A:\n\tpass\r\n",
    "for (int i = 0; i < n; ++i) { std::cout << \"x\\n\" << i; } /* … */ // path/to/file.cpp\n",
    "Привет, мир! Ёлка. Καλημέρα κόσμε. שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดีชาวโลก 안녕하세요 세계 こんにちは世界 カタカナ 你好，世界。中文没有空格",
    "ქართული հայերեն አማርኛ ខ្មែរ မြန်မာ தமிழ் తెలుగు ગુજરાતી ᚠᚢᚦ 𐍈 𓀀 𠀀𠀁 ꯁ",
    "é e\u0301 a\u0308\u0323 \u0323\u0308a Å \u212b ﬁ ﬀ ² ㎏ Ⅷ ａｂｃ １２３ ｶﾞ 각 \u1100\u1161\u11a8 \u0344 \u0958 \u2126 ŉ ǆ ß ẞ İ ı Σσς",
    "👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☺️ ❤️‍🔥 🤷🏿‍♂️ 1️⃣ 🧑‍🚀x",
    "\u200b\u200c\u200d\ufeff\u00ad\u2060 \u00a0\u2003\u3000\u1680\u180e\u2028\u2029\u0085 \u001c\u001d\u001e\u001f x\u00a0y \u202eabc\u202c",
    "\x00\x01\x02\x07\x08\x0b\x0c\x0e\x1b\x7f\x80\x9f end",
    "zero\x00one \ufffd \uffff \U0010ffff \ue000 \U000e0001",
    "a" * 300, "ab" * 200, " " * 300, "\n" * 100, " \n" * 50, "\t" * 40 + "x", "!" * 120, "1" * 61, "é" * 150, "的" * 130, "𝒳" * 70,
    "AbCdEfGHIjkl ABC abc Abc aBC ABCdef XMLHttpRequest iPhone ǅ ǅA aǅ ʰa ªb",
    "https://example.com/a?b=c&d=e#f user@example.org $9.99 100% #tag @name a_b-c +1 -2 *3 /4 ~ ` ^ | \\",
    "end of line  \n  start of line\n\n   \n\t\n x \r\n\r\n y \r z",
    "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>", "<|endoftext", "<|im_start|>user\nHi<|im_end|>\n",
    "<s>Hello</s> <s> x </s>", "  [MASK]  x [MASK]", "a <strip>  b  <strip>c<strip>", "\n <strip>\u3000\n<strip> ",
    "word words sword word. word-word _word word_ éword word́ word1 1word", "Ünorm U\u0308norm Ünorm ünorm", "x<|fim middle|>y  z   w",
    "Split on ▁ and ▁▁ x▁y ▁", "<0x41> <0xE4><unk> <unk>", "日本語のテキストとEnglishの混在、123個。",
    "Ｆｕｌｌ　ｗｉｄｔｈ！＂＃ 「引用」『』【】〜・ー〇々〆", "١٢٣٫٤٥ ۱۲۳ ०१२ ๐๑๒ 零一二三", "'\"'\"’‘“”„‚«»‹›—–‐‑…·•",
    "newly assigned: \U00010d50\U00010d70 \U00016d40 \U0001ccf1 \u1c89 \ua7cb \U0001fae9 \U00031350 \u0897 \U00011f50 \U0001f6dc",
]

# Pieces of which random strings are made: what the patterns tell apart, and pairs that compose.
ALPHABET = (
    list("aAbBsStTdDmMrRevlLzZ019 \n\r\t'.,!?-_/(){}[]<>|#@$%^&*+=~`\\\":;") + ["  ", "\n\n", "\r\n", " '", "'s", "'LL", "'ve", "'re", "ſ", "K"]
    + list("éÜßøñçÅΣςжЯаїשלםعربيहिन्दीทไทย한국語日本中文ひカー𝟘½²Ⅷ①ªǅʰ")
    + ["e\u0301", "\u0301", "\u0308", "\u0323", "\u093c", "\u1161", "\u11a8", "\u1100", "가", "\ufb01", "\uff21", "\u212b", "\u3099", "か"]
    + ["👍", "🏽", "\u200d", "❤", "\ufe0f", "🇩", "🇪", "\u00a0", "\u3000", "\u2028", "\u0085", "\u180e", "\u001c", "\x00", "\x7f", "\ufffd"]
    + ["the", " of", "ing", " 12345", "<0x0A>", "▁", "<unk>", "U\u0308norm"]
)


def random_text(rng):
    kind = rng.random()
    size = int(rng.expovariate(1 / 12)) + 1
    if kind < 0.1:    # any characters
        return "".join(chr(c) for c in (rng.randrange(0x110000) for _ in range(size)) if not 0xD800 <= c < 0xE000)
    pool = rng.sample(ALPHABET, 4) if kind < 0.4 else ALPHABET
    return "".join(rng.choice(SPECIALS) if rng.random() < 0.04 else rng.choice(pool) for _ in range(size))


def training_text():
    top = pathlib.Path(__file__).parents[2]
    files = [*sorted((top / "docs").glob("*.md"))[:4], top / "README.md", *sorted((top / "src/data").glob("*.cpp"))[:3]]
    return TEXTS + [line for f in files for line in f.read_text().splitlines(keepends=True)]
