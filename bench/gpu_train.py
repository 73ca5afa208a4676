"""Sheaf against its peers on GPUs of one machine, in one run: the same model, sequence length and micro-batch, bf16 compute over fp32 masters.

python3 bench/gpu_train.py --sheaf build/cuda/src/sheaf [--config examples/qwen3_1p7b_config.json] [--seq 4096] [--micro-batch 4] [--steps 12]
                           [--document TOKENS] [--gpus 1] [--zero 3] [--peers eager,compile,eager-experts] [--profile] [--output FOLDER] [key.path=value ...]
Prints a table with tokens/s per GPU, peak memory of a GPU and both ratios (Sheaf / peer), and writes it as JSON into the output folder.
key.path=value: more settings of Sheaf's run. --document: rows are packed with documents of as many tokens, across which nothing attends.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile


def write_tokens(folder, ids, sizes):
    """corpus.bin and .idx in the layout of Megatron's IndexedDataset: a document for each of the sizes."""
    import numpy

    numpy.asarray(ids, numpy.int32).tofile(folder / "corpus.bin")
    sizes = numpy.asarray(sizes, numpy.int32)
    begins = numpy.cumsum(numpy.concatenate([[0], sizes[:-1]]), dtype=numpy.int64) * 4
    with open(folder / "corpus.idx", "wb") as out:
        out.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 4, len(sizes), len(sizes) + 1))
        for part in (sizes, begins, numpy.arange(len(sizes) + 1, dtype=numpy.int64)):
            out.write(part.tobytes())


def write_corpus(folder, vocab, tokens, document):
    """Random tokens, in documents of as many; 0: one document."""
    import numpy

    tokens -= tokens % max(document, 1)
    ids = numpy.random.default_rng(0).integers(0, vocab, tokens)
    write_tokens(folder, ids, [document] * (tokens // document) if document else [tokens])


def run_sheaf(arguments, folder):
    vocab = json.load(open(arguments.config))["vocab_size"]
    write_corpus(folder, vocab, arguments.gpus * arguments.micro_batch * arguments.seq * (arguments.steps + 1) + 1, arguments.document)
    run = {"model": {"config": arguments.config}, "data": {"train": str(folder / "corpus.bin"), "seq_len": arguments.seq,
                                                               "packing": "documents" if arguments.document else "concat"},
           "run": {"steps": arguments.steps, "output": str(folder / "sheaf"), "device": "cuda", "write_model": False},
           "train_micro_batch_size_per_gpu": arguments.micro_batch, "bf16": {"enabled": True},
           "zero_optimization": {"stage": arguments.zero if arguments.gpus > 1 else 0},
           "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}
    (folder / "run.json").write_text(json.dumps(run))
    extra = ["--profile", str(arguments.steps)] if arguments.profile else []
    subprocess.run([arguments.sheaf, "train", str(folder / "run.json"), "--nproc", str(arguments.gpus), *arguments.settings, *extra], check=True)
    steps = [json.loads(line) for line in open(folder / "sheaf" / "metrics.jsonl")]
    timed = steps[arguments.steps // 3:-1 if arguments.profile else None]    # the profiled step runs call by call
    median = statistics.median(step["step_ms"] for step in timed)
    return {"name": "Sheaf", "step_ms": round(median, 1), "tokens_per_s": round(arguments.micro_batch * arguments.seq / median * 1e3),
            "peak_gib": round(max(step["peak_bytes"] for step in steps) / 2**30, 2), "first_loss": round(steps[0]["loss"], 4)}


def run_peer(arguments, peer):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(arguments.gpus), "bench/peers/hf_fsdp2.py", "--config",
               arguments.config, "--seq", str(arguments.seq), "--micro-batch", str(arguments.micro_batch), "--steps", str(arguments.steps),
               "--document", str(arguments.document)]
    out = subprocess.run(command + {"eager": [], "compile": ["--compile"], "eager-experts": ["--experts", "eager"]}[peer], stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def compare(arguments):
    """Rows of the table, Sheaf's first."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sheaf-bench-"))
    try:
        rows = [run_sheaf(arguments, folder)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows += [run_peer(arguments, peer) for peer in arguments.peers.split(",") if peer]
    for row in rows:
        row["speed_ratio"] = round(rows[0]["tokens_per_s"] / row["tokens_per_s"], 3)
        row["memory_ratio"] = round(rows[0]["peak_gib"] / row["peak_gib"], 3)
    return rows


def arguments_of(given=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheaf", required=True)
    parser.add_argument("--config", default="examples/qwen3_1p7b_config.json")
    parser.add_argument("--seq", type=int, default=4096)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--zero", type=int, default=3)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--peers", default="eager,compile")
    parser.add_argument("--document", type=int, default=0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--output", default="")
    return parser.parse_args(given)


def main():
    arguments = arguments_of()
    rows = compare(arguments)
    print(f"\n{'':22}{'step ms':>10}{'tokens/s':>10}{'peak GiB':>10}{'speed ratio':>13}{'memory ratio':>14}")
    for row in rows:
        print(f"{row['name']:22}{row['step_ms']:10.1f}{row['tokens_per_s']:10}{row['peak_gib']:10.2f}{row['speed_ratio']:13.3f}{row['memory_ratio']:14.3f}")
    text = json.dumps({"config": arguments.config, "seq": arguments.seq, "micro_batch": arguments.micro_batch, "gpus": arguments.gpus, "zero": arguments.zero,
                       "rows": rows})
    print(text)
    if arguments.output:
        (pathlib.Path(arguments.output) / "gpu_train.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
