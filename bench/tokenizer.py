"""Sheaf's tokenizers against HuggingFace `tokenizers` (encode_batch_fast) on the same documents, taking turns:

    ninja -C build/cpu tokenizer_bench && .venv/bin/python bench/tokenizer.py [MEGABYTES]

Trains tokenizers with 32,000 tokens on text of this machine (documentation, licences, sources), once. Prints medians of megabytes a
second, and their ratio, for one thread and for all cores; token counts must agree.
"""
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

os.environ.setdefault("RAYON_NUM_THREADS", str(os.cpu_count()))
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests/tokenizer"))
from kinds import LLAMA2, LLAMA3, O200K, QWEN2

TURNS = 3
TOP = pathlib.Path(__file__).parents[1]


def documents(megabytes):
    """Pieces of 20 kB of whatever text is here, in the same order every time."""
    out, size = [], 0
    for folder in ("/usr/share/doc", "/usr/share/common-licenses", "/usr/lib/python3.11", "/usr/share/perl", str(TOP / "src"), str(TOP / "docs")):
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.suffix in (".gz", ".pyc", ".so", ".png") or not path.is_file() or path.stat().st_size > 1 << 20:
                continue
            text = path.read_bytes()
            if b"\0" in text:
                continue
            text = text.decode("utf-8", "replace")
            for begin in range(0, len(text), 20_000):
                out.append(text[begin : begin + 20_000])
                size += len(out[-1])
            if size > megabytes << 20:
                return out
    return out


def kinds():
    for name, pattern, normalizer in (("gpt2", None, None), ("llama3", LLAMA3, None), ("qwen2", QWEN2, normalizers.NFC()), ("o200k", O200K, None)):
        tokenizer = Tokenizer(models.BPE())
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), level]) if pattern else level
        if normalizer:
            tokenizer.normalizer = normalizer
        tokenizer.decoder = decoders.ByteLevel()
        yield name, tokenizer, dict(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>"]), None
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    yield "llama2", tokenizer, dict(special_tokens=["<unk>"] + [f"<0x{b:02X}>" for b in range(256)], limit_alphabet=2000), LLAMA2


def main():
    texts = documents(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
    folder = TOP / ".cache/tokenizer_bench"
    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "corpus"
    corpus.write_bytes(b"".join(t.encode() + b"\0" for t in texts))
    megabytes = sum(len(t.encode()) for t in texts) / 1e6
    print(f"{megabytes:.1f} MB in {len(texts)} documents, {os.cpu_count()} cores")
    for name, tokenizer, options, later in kinds():
        path = folder / f"{name}.json"
        if not path.exists():
            tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=32_000, show_progress=False, **options))
            if later:
                tokenizer.pre_tokenizer, tokenizer.normalizer = None, later
            tokenizer.save(str(path))
        peer = Tokenizer.from_file(str(path))
        for threads in (1, os.cpu_count()):
            os.environ["TOKENIZERS_PARALLELISM"] = "false" if threads == 1 else "true"
            ours = subprocess.Popen([TOP / "build/cpu/tests/tokenizer_bench", path, corpus, str(threads)], stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, text=True)
            times = {"sheaf": [], "hf": []}
            for _ in range(TURNS):
                ours.stdin.write("\n")
                ours.stdin.flush()
                seconds, tokens, peak = ours.stdout.readline().split()
                times["sheaf"].append(float(seconds))
                start = time.perf_counter()
                wanted = sum(len(e) for e in peer.encode_batch_fast(texts, add_special_tokens=False))
                times["hf"].append(time.perf_counter() - start)
                assert int(tokens) == wanted, (name, tokens, wanted)
            ours.communicate("")
            rate = {k: megabytes / statistics.median(v) for k, v in times.items()}
            print(f"{name:7} {threads} threads: sheaf {rate['sheaf']:6.1f} MB/s, tokenizers {rate['hf']:6.1f} MB/s, "
                  f"ratio {rate['sheaf'] / rate['hf']:5.2f}; peak {int(peak) / 2**20:.0f} MiB, "
                  f"theirs {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB", flush=True)


main()
