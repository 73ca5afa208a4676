"""`sheaf eval`, and evaluation in a run, against transformers:  eval_test.py SHEAF [folder of the oracle]"""
import json
import math
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

SHEAF = pathlib.Path(sys.argv[1]).absolute()
ORACLE = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ".cache/oracle")
TOLERANCE = 1e-5    # fp32 against fp32, other orders of sums
SEQ = 24
logging.disable_progress_bar()


def sheaf(*arguments, status=0):
    done = subprocess.run([SHEAF, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
    return done


def evaluate(model, data, *arguments):
    return json.loads(sheaf("eval", "--model", model, "--data", data, "--seq-len", SEQ, "--device", "cpu", "--json", *arguments).stdout)


def write_tokens(path, documents):
    numpy.concatenate(documents).astype(numpy.int32).tofile(path)
    sizes = [len(d) for d in documents]
    with open(path.with_suffix(".idx"), "wb") as out:
        out.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 4, len(sizes), len(sizes) + 1))
        numpy.array(sizes, numpy.int32).tofile(out)
        (numpy.cumsum([0, *sizes[:-1]]) * 4).astype(numpy.int64).tofile(out)
        numpy.arange(len(sizes) + 1, dtype=numpy.int64).tofile(out)


def reference(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def logprobs_of(model, tokens):
    """[n - 1]: of each token after the first, given all before it."""
    with torch.no_grad():
        logits = model(torch.tensor(tokens[:-1])[None]).logits[0]
    return torch.log_softmax(logits.float(), -1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


def check(result, file, expected_logprobs, expected_targets):
    stored = load_file(file)
    targets, logprobs = stored["targets"], stored["logprobs"]
    assert logprobs.dtype == torch.float32 and not targets.dtype.is_floating_point
    assert torch.equal(targets.long(), expected_targets), (targets, expected_targets)
    counts = expected_targets >= 0
    assert (logprobs[~counts] == 0).all()
    distance = ((logprobs - expected_logprobs)[counts].norm() / expected_logprobs[counts].norm()).item()
    assert distance <= TOLERANCE, distance
    loss = -expected_logprobs[counts].double().mean().item()
    assert abs(result["loss"] - loss) <= TOLERANCE * loss, (result, loss)
    assert abs(result["perplexity"] - math.exp(loss)) <= 2 * TOLERANCE * loss * math.exp(loss), (result, loss)
    assert result["tokens"] == counts.sum().item()
    return distance


def concat(temporary):
    rng, worst = numpy.random.default_rng(1), 0
    for name in ("llama", "mistral_window", "qwen2", "qwen3", "llama_tied"):
        folder = ORACLE / name
        vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
        tokens = rng.integers(0, vocab, 7 * SEQ + 5)    # 7 rows; at most 3 at once: the last batch is not full
        write_tokens(temporary / "concat.bin", [tokens])
        result = evaluate(folder, temporary / "concat.bin", "--rows", 3, "--logprobs", temporary / "l.safetensors")
        model = reference(folder)
        rows = [tokens[i * SEQ:(i + 1) * SEQ + 1].tolist() for i in range(7)]
        worst = max(worst, check(result, temporary / "l.safetensors", torch.stack([logprobs_of(model, row) for row in rows]),
                                 torch.tensor([row[1:] for row in rows])))
    print(f"eval: logprobs of 5 models within {worst:.1e} of transformers")


def documents(temporary):
    """Each packed document has the log-probabilities that it has alone."""
    rng = numpy.random.default_rng(2)
    sizes = [5, 9, 12, 20, 3, 2, 25]    # positions 4+8 | 11 | 19+2+1 | 24: next fit
    for name in ("qwen3", "mistral_window"):
        folder = ORACLE / name
        vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
        docs = [rng.integers(0, vocab, n).tolist() for n in sizes]
        write_tokens(temporary / "docs.bin", docs)
        result = evaluate(folder, temporary / "docs.bin", "--packing", "documents", "--logprobs", temporary / "l.safetensors")
        model = reference(folder)
        rows, at = [[]], 0
        for d in docs:
            if at + len(d) - 1 > SEQ:
                rows.append([])
                at = 0
            rows[-1].append(d)
            at += len(d) - 1
        assert len(rows) == 3, rows
        expected = torch.zeros(len(rows), SEQ)
        targets = torch.full((len(rows), SEQ), -100)
        for i, row in enumerate(rows):
            at = 0
            for d in row:
                expected[i, at:at + len(d) - 1] = logprobs_of(model, d)
                targets[i, at:at + len(d) - 1] = torch.tensor(d[1:])
                at += len(d) - 1
        check(result, temporary / "l.safetensors", expected, targets)


def in_a_run(temporary):
    """Losses on held-out rows after updates: those that `sheaf eval` finds for the model that the run wrote then."""
    folder = ORACLE / "qwen3"
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    rng = numpy.random.default_rng(3)
    write_tokens(temporary / "train.bin", [rng.integers(0, vocab, 40 * SEQ + 1)])
    write_tokens(temporary / "held.bin", [rng.integers(0, vocab, 5 * SEQ + 1)])
    run = {"model": str(folder), "data": {"train": str(temporary / "train.bin"), "seq_len": SEQ}, "run": {"steps": 5, "eval_every": 2},
           "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2, "optimizer": {"params": {"lr": 1e-3}}}
    (temporary / "run.json").write_text(json.dumps(run))

    def train(output, *overrides):
        sheaf("train", temporary / "run.json", f"run.output={temporary / output}", "run.device=cpu", *overrides)
        return [json.loads(line) for line in (temporary / output / "metrics.jsonl").read_text().splitlines()]

    whole = train("file", f"data.eval={temporary / 'held.bin'}")
    assert ["eval_loss" in m for m in whole] == [False, True, False, True, True], whole
    for step in (2, 4):
        train(f"to_{step}", f"run.steps={step}", "run.eval_every=0", "data.eval=null")
        result = evaluate(temporary / f"to_{step}" / "model", temporary / "held.bin", "--rows", 2)
        assert whole[step - 1]["eval_loss"] == result["loss"], (step, whole, result)    # the same program on the same weights
        assert whole[step - 1]["eval_perplexity"] == result["perplexity"]
    # Evaluation reads weights where they lie: it changes no number of the run.
    alone = train("alone", "run.eval_every=0")
    assert [m["loss"] for m in alone] == [m["loss"] for m in whole]
    assert all("eval_loss" not in m for m in alone)

    # bf16: the same weights in the compute type.
    low = train("bf16", f"data.eval={temporary / 'held.bin'}", "bf16.enabled=true", "run.steps=2")
    assert abs(low[1]["eval_loss"] - whole[1]["eval_loss"]) < 0.02 * whole[1]["eval_loss"]    # bf16 has 8 bits; wrong weights are far off

    # A share of the rows: the last ones, on which the run does not train.
    split = train("split", "data.eval_split=0.25", "data.shuffle=false", "run.steps=7")    # 7 updates of 4 of the 30 rows
    tokens = numpy.fromfile(temporary / "train.bin", numpy.int32)
    write_tokens(temporary / "tail.bin", [tokens[30 * SEQ:]])
    result = evaluate(temporary / "split" / "model", temporary / "tail.bin", "--rows", 2)
    assert split[-1]["eval_loss"] == result["loss"], (split, result)
    done = sheaf("train", temporary / "run.json", f"run.output={temporary / 'long'}", "run.device=cpu", "data.eval_split=0.9",
                 "train_micro_batch_size_per_gpu=3", status=2)
    assert "4 rows" in done.stderr and "needs 6" in done.stderr, done.stderr    # 40 rows, 36 held out


def bad_input(temporary):
    folder = ORACLE / "qwen3"
    (temporary / "text.txt").write_text("text without a tokenizer")
    for arguments, wanted in (
            (("--model", temporary, "--data", "x.bin"), "config.json"),
            (("--model", folder, "--data", temporary / "none.bin"), "none.bin"),
            (("--model", folder, "--data", temporary / "text.txt"), "tokenizer"),
            (("--model", folder, "--data", temporary / "held.bin", "--logprobs", "/no/such/folder/f"), "/no/such/folder/f")):
        done = sheaf("eval", *arguments, "--seq-len", SEQ, status=2)
        assert wanted in done.stderr and len(done.stderr.splitlines()) <= 8, done.stderr
        assert done.stdout == "", done.stdout
    assert not list(temporary.glob("*.tmp-*"))
    run = json.loads((temporary / "run.json").read_text())
    for overrides, wanted in ((("data.eval_split=0.5", f"data.eval={temporary / 'held.bin'}"), "take one"),
                              ((), "nothing to evaluate on"), (("data.eval_split=1.5",), "< 1")):
        done = sheaf("train", temporary / "run.json", f"run.output={temporary / 'bad'}", *overrides, status=2)
        assert wanted in done.stderr, done.stderr
    assert not (temporary / "bad").exists()


if __name__ == "__main__":
    temporary = pathlib.Path(tempfile.mkdtemp(prefix="sheaf-eval-"))
    try:
        concat(temporary)
        documents(temporary)
        in_a_run(temporary)
        bad_input(temporary)
    finally:
        shutil.rmtree(temporary)
