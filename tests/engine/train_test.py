"""`sheaf train` against the training runs of tests/oracle/train.py:  train_test.py SHEAF MODELS_TEST [folder of the oracle] [--whole]

Every step's loss and gradient norm, the rates, the final weights, the files of the output folder; then what the written
model is to transformers. --whole: 100 steps of every model with experts instead.
"""
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "oracle"))    # python -I leaves it out
from train import FAMILIES, VARIANTS, train_experts

WHOLE = "--whole" in sys.argv
SHEAF, MODELS_TEST, ORACLE = (pathlib.Path(p).absolute() for p in ([a for a in sys.argv[1:] if a != "--whole"] + [".cache/oracle"])[:3])
RUNS = {"train_llama": "llama", "train_mistral": "mistral_window", "train_qwen2": "qwen2", "train_qwen3": "qwen3",
        "train_documents": "qwen3_bias_layer_types", "train_adam": "llama_tied"} | {f"train_{model}": model for model in FAMILIES}
FIELDS = {"step", "loss", "grad_norm", "lr", "tokens", "step_ms", "tokens_per_s", "peak_bytes"}
# Two fp32 programs that differ in the order of sums, at rates up to 1e-3.
STEP_TOLERANCE, WEIGHT_TOLERANCE = 1e-5, 1e-4
logging.disable_progress_bar()


def close(a, b, relative):
    return a == b or abs(a - b) <= relative * abs(b)    # false for NaN


def sheaf_train(run, output, *overrides):
    command = [SHEAF, "train", run, f"run.output={output}", *overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def train(name, output, *overrides, model=None):
    folder = ORACLE / name
    paths = f"model={model or ORACLE / RUNS[name]}", f"data.train={folder / 'corpus.bin'}"
    return sheaf_train(folder / "run.json", output, *paths, *overrides)


def peer(folder):
    return json.loads((folder / "steps.json").read_text())


def weights(folder):
    found = {}
    for file in sorted(folder.glob("model*.safetensors")):
        found |= load_file(file)
    return found


def distance(a, b):
    """||a - b|| / ||b|| of all tensors together."""
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    squares = [((a[k].double() - b[k].double()).square().sum(), b[k].double().square().sum()) for k in b]
    return (sum(s[0] for s in squares) / sum(s[1] for s in squares)).sqrt().item()


def check_metrics(metrics, batch, more=frozenset()):
    assert [m["step"] for m in metrics] == list(range(1, len(metrics) + 1))
    for m in metrics:
        assert m.keys() == FIELDS | more, m.keys() ^ FIELDS ^ more
        assert m["step_ms"] > 0 and close(m["tokens_per_s"], m["tokens"] / m["step_ms"] * 1e3, 1e-9)    # the same division in another unit
        assert isinstance(m["peak_bytes"], int) and m["peak_bytes"] == metrics[0]["peak_bytes"] > 0    # everything is planned before step 1
        assert isinstance(m["tokens"], int) and 0 < m["tokens"] <= batch


def relative_errors(found, expected):
    """Of each step: the largest of its losses and its gradient norm."""
    errors = []
    for m, e in zip(found, expected, strict=True):
        keys = e.keys() & {"loss", "grad_norm", "aux_loss"}
        assert all(math.isfinite(m[key]) for key in keys), (m, e)
        errors.append(max(abs(m[key] - e[key]) / abs(e[key]) for key in keys))
    return errors


def furthest(found, expected, key):
    return max(abs(m[key] - e[key]) / abs(e[key]) for m, e in zip(found, expected, strict=True))


def step_errors(model, metrics, expected):
    check_metrics(metrics, 4 * 24, ({"load"} if model in FAMILIES | VARIANTS else set()) | expected[0].keys() & {"aux_loss"})
    for m, e in zip(metrics, expected, strict=True):
        assert m["tokens"] == e["tokens"], (model, m, e)
        assert close(m["lr"], e["lr"], 1e-15), (model, m, e)    # one formula in fp64: its last bit may differ
    return relative_errors(metrics, expected)


def same_steps(name, temporary):
    """20 steps of AdamW or Adam with warm-up, clipping and accumulation in fp32."""
    expected = peer(ORACLE / name)
    assert len(expected) == 20
    errors = step_errors(RUNS[name], train(name, temporary / name), expected)
    assert max(errors) <= STEP_TOLERANCE, (name, errors)
    found, before = weights(temporary / name / "model"), weights(ORACLE / RUNS[name])
    error = distance(found, load_file(ORACLE / name / "final.safetensors"))
    assert error <= WEIGHT_TOLERANCE, (name, error)
    # The test of the test: training moved the weights by far more than what is tolerated.
    assert distance(found, before) > 20 * WEIGHT_TOLERANCE, name
    print(f"{name}: steps within {max(errors):.1e}, weights {error:.1e}", flush=True)


def a_changed_setting_is_seen(temporary):
    """The test of the test: each part of the recipe, changed a little, must move some step out of the tolerance. An auxiliary loss is quadratic
    in its micro-batch: that of two halves is another."""
    changes = [("train_llama", change) for change in (
        "gradient_clipping=4.6", "optimizer.params.betas=[0.9, 0.951]", "optimizer.params.weight_decay=0.09", "optimizer.params.eps=1e-6",
        "scheduler.params.warmup_num_steps=7", "optimizer.params.bias_correction=false")]
    for i, (name, change) in enumerate([*changes, ("train_mixtral_aux_window", "gradient_accumulation_steps=2")]):
        metrics = train(name, temporary / f"changed-{i}", change)
        assert not all(close(m[k], e[k], STEP_TOLERANCE) for m, e in zip(metrics, peer(ORACLE / name)) for k in ("loss", "grad_norm")), change


def resolved_run_repeats(temporary):
    """run.json of the output folder is the whole run: it gives the same bits again."""
    again = sheaf_train(temporary / "train_qwen2" / "run.json", temporary / "again")
    first = [json.loads(line) for line in (temporary / "train_qwen2" / "metrics.jsonl").read_text().splitlines()]
    assert [(m["loss"], m["grad_norm"], m["lr"]) for m in again] == [(m["loss"], m["grad_norm"], m["lr"]) for m in first]
    assert (temporary / "again/model/model.safetensors").read_bytes() == (temporary / "train_qwen2/model/model.safetensors").read_bytes()


def bf16_stays_near(temporary):
    """bf16 compute, fp32 master weights. A bf16 number is off by up to U = 2^-9. The loss is a mean over 96 tokens, in which the roundings
    of single logits average out: one U. A gradient's entries have passed some 20 roundings that add up like a random walk, and the norm is the
    mean over all of them: 4 U. Adam divides an entry by its own size, so the weights' paths differ by the relative error of single entries,
    a few percent of the way they went; a tenth would be more than rounding."""
    expected = peer(ORACLE / "train_qwen3")
    metrics = train("train_qwen3", temporary / "bf16", "bf16.enabled=true")
    check_metrics(metrics, 4 * 24)
    assert not all(close(m["loss"], e["loss"], STEP_TOLERANCE) for m, e in zip(metrics, expected)), "this was fp32"
    worst, norm = (furthest(metrics, expected, key) for key in ("loss", "grad_norm"))
    final, before = load_file(ORACLE / "train_qwen3" / "final.safetensors"), weights(ORACLE / "qwen3")
    found = weights(temporary / "bf16" / "model")
    assert all(t.dtype == torch.float32 for t in found.values()), "the input's dtype: fp32"
    moved = distance(found, final) / distance(before, final)
    print(f"bf16: worst loss {worst:.1e}, norm {norm:.1e}, weights {moved:.1e} of the movement")
    assert worst <= 2**-9 and norm <= 4 * 2**-9 and moved <= 0.1


def a_model_that_nobody_wants(temporary):
    train("train_qwen2", temporary / "unwritten", "run.steps=1", "run.write_model=false")
    assert not (temporary / "unwritten" / "model").exists()


def split_masters_are_the_same_numbers(temporary):
    """Masters kept as the bf16 weight and what it leaves out: fp32 numbers, whose upper halves differ from casts in ties alone. Weights that
    are bf16 numbers have no ties: their first update, which is the third step's (two have rate 0), is the same, bit for bit. Of what it
    makes one number in 2^16 is a tie: from there on two bf16 runs differ, each by its roundings from the exact one (bf16_stays_near): two U in the loss, eight in the norm. A checkpoint holds every
    bit of both kinds, so what it was written by does not matter to the next run."""
    start = temporary / "bf16-numbers"
    shutil.copytree(ORACLE / "qwen3", start)
    save_file({k: t.bfloat16().float() for k, t in weights(start).items()}, start / "model.safetensors", {"format": "pt"})

    def trained(how, output, *more, **model):
        return train("train_qwen3", temporary / output, "bf16.enabled=true", "run.save_every=10", f"run.master_encoding={how}", *more, **model)

    def numbers(metrics):
        return [(m["loss"], m["grad_norm"]) for m in metrics]

    once = {how: numbers(trained(how, f"once-{how}", "run.steps=3", model=start)) for how in ("fp32", "split")}
    whole, halves = (weights(temporary / f"once-{how}" / "model") for how in ("fp32", "split"))
    assert once["fp32"] == once["split"] and all(torch.equal(whole[k], halves[k]) for k in whole)
    assert any(not torch.equal(t, t.bfloat16().float()) for t in halves.values()), "the lower halves are written too"

    runs = {how: trained(how, f"masters-{how}") for how in ("fp32", "split")}
    for how, other in (("split", "fp32"), ("fp32", "split"), ("split", "split")):
        output = f"masters-{how}-{other}"
        shutil.copytree(temporary / f"masters-{how}", temporary / output, ignore=shutil.ignore_patterns("model", "step_00000020"))
        resumed = trained(other, output, "--resume")
        for expected in runs.values():
            loss, norm = (furthest(resumed, expected, key) for key in ("loss", "grad_norm"))
            print(f"masters: {how} -> {other}: worst loss {loss:.1e}, norm {norm:.1e}")
            assert loss <= 2 * 2**-9 and norm <= 8 * 2**-9, (how, other)
        if how == other:
            assert numbers(resumed) == numbers(runs[how]), "a checkpoint holds every bit of a split master"
            exported = temporary / f"{output}-exported"
            subprocess.run([SHEAF, "checkpoint", "export", temporary / output, "--output", exported], check=True, capture_output=True)
            again, final = weights(exported), weights(temporary / output / "model")
            assert again.keys() == final.keys() and all(torch.equal(again[k], final[k]) for k in final)
    memory = {how: metrics[0]["peak_bytes"] for how, metrics in runs.items()}
    assert memory["split"] < memory["fp32"], memory
    refused = subprocess.run([SHEAF, "train", ORACLE / "train_qwen3/run.json", f"run.output={temporary / 'refused'}", f"model={ORACLE / 'qwen3'}",
                              f"data.train={ORACLE / 'train_qwen3/corpus.bin'}", "run.master_encoding=split"], capture_output=True, text=True)
    assert refused.returncode == 2 and "run.master_encoding" in refused.stderr, (refused.returncode, refused.stderr)


def moments_in_bf16(temporary):
    """Moments are rounded in every update, by up to U = 2^-9 each. The first moment averages 1 / (1 - 0.9) of them, the second decides the size
    of a step by its root: steps are off by some U, at random, and losses by less than bf16 itself is (bf16_stays_near). A run goes on from a
    checkpoint of either kind."""
    def trained(bf16, output, *more):
        return train("train_qwen3", temporary / output, "bf16.enabled=true", "run.save_every=10", f"bf16.bf16_optimizer_states={bf16}", *more)

    runs = {bf16: trained(bf16, f"moments-{bf16}") for bf16 in ("false", "true")}
    for bf16, other in (("true", "false"), ("false", "true"), ("true", "true")):
        output = f"moments-{bf16}-{other}"
        shutil.copytree(temporary / f"moments-{bf16}", temporary / output, ignore=shutil.ignore_patterns("model", "step_00000020"))
        resumed = trained(other, output, "--resume")
        worst = max(furthest(resumed, run, "loss") for run in runs.values())
        print(f"moments in bf16: {bf16} -> {other}: worst loss {worst:.1e}")
        assert worst <= 2 * 2**-9 and (bf16 != other or [m["loss"] for m in resumed] == [m["loss"] for m in runs[bf16]])
    numbers = sum(t.numel() for t in weights(ORACLE / "qwen3").values())
    saved = runs["false"][0]["peak_bytes"] - runs["true"][0]["peak_bytes"]
    assert close(saved, 4 * numbers, 0.01), (saved, numbers)    # but for the alignment of tensors


def gradients_in_bf16(temporary):
    """The CPU rounds a product of bf16 before it makes fp32 of it, so that here the numbers are the same and only the norm adds up squares in
    another order; where more bits come out of a product, tests/gpu says what that makes. With one micro-batch memory is less; where
    micro-batches are added nothing changes."""
    def trained(dtype, accumulation):
        return train("train_qwen3", temporary / f"gradients-{dtype}-{accumulation}", "bf16.enabled=true", f"data_types.grad_accum_dtype={dtype}",
                     f"gradient_accumulation_steps={accumulation}")

    wide, narrow = trained("fp32", 1), trained("bf16", 1)
    worst = max(furthest(narrow, wide, key) for key in ("loss", "grad_norm"))
    print(f"gradients in bf16: off by {worst:.1e}, {wide[0]['peak_bytes']} -> {narrow[0]['peak_bytes']} bytes")
    assert 0 < worst <= 1e-5    # sums of 100,000 squares in fp32
    assert narrow[0]["peak_bytes"] < wide[0]["peak_bytes"]
    assert [m["loss"] for m in trained("bf16", 2)] == [m["loss"] for m in trained("fp32", 2)]


def logits_agree(folder):
    """transformers loads the folder without a complaint, and our graph computes the same logits from it: the C++ test reads
    oracle.safetensors."""
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32)
    assert not any(report.values()), (folder, report)
    ids = torch.randint(0, model.config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        out = model.eval()(ids, labels=ids)
    labels = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    save_file({"ids": ids, "labels": labels, "positions": torch.arange(24).expand(2, 24).contiguous(), "logits": out.logits,
               "loss": out.loss}, folder / "oracle.safetensors")
    done = subprocess.run([MODELS_TEST, "--gtest_brief=1", "--gtest_filter=TrainedModel.*"],
                          env=os.environ | {"SHEAF_TEST_MODEL": str(folder)}, capture_output=True, text=True)
    assert done.returncode == 0 and "SKIPPED" not in done.stdout, (done.stdout, done.stderr)
    (folder / "oracle.safetensors").unlink()


def written_models(temporary):
    for name in RUNS:
        logits_agree(temporary / name / "model")
    # A sharded bf16 folder with a tokenizer: dtype, names and tokenizer files come out as they went in.
    source = temporary / "source"
    model = AutoModelForCausalLM.from_pretrained(ORACLE / "qwen2", dtype=torch.bfloat16)
    model.save_pretrained(source, max_shard_size="100KB")
    assert len(list(source.glob("model-*-of-*.safetensors"))) > 1
    files = {"tokenizer.json": '{"version": "1.0"}', "tokenizer_config.json": '{"a": 1}', "special_tokens_map.json": "{}",
             "vocab.json": "{}", "merges.txt": "a b\n", "chat_template.jinja": "{{ messages }}", "generation_config.json": '{"eos_token_id": 1}'}
    for name, text in files.items():
        (source / name).write_text(text)
    (source / "notes.txt").write_text("not a part of the model")
    train("train_qwen2", temporary / "bf16-in", "run.save_every=10", model=source)
    written = temporary / "bf16-in" / "model"
    found, before = weights(written), weights(source)
    assert found.keys() == before.keys(), found.keys() ^ before.keys()
    assert all(t.dtype == torch.bfloat16 and t.shape == before[k].shape for k, t in found.items())
    assert json.loads((written / "config.json").read_text())["dtype"] == "bfloat16"
    for name, text in files.items():
        assert (written / name).read_text() == text, name
    assert not (written / "notes.txt").exists()
    logits_agree(written)
    # What the last checkpoint exports is the same folder, byte for byte, and loads as well.
    exported = temporary / "exported"
    subprocess.run([SHEAF, "checkpoint", "export", temporary / "bf16-in", "--output", exported], check=True, capture_output=True)
    assert {p.name: p.read_bytes() for p in exported.iterdir()} == {p.name: p.read_bytes() for p in written.iterdir()}
    logits_agree(exported)
    # The same start in fp32, so that only the last rounding to bf16 is between the two: half a unit in the last of 8 bits.
    model.float().save_pretrained(temporary / "source-fp32")
    train("train_qwen2", temporary / "fp32-in", model=temporary / "source-fp32")
    exact = weights(temporary / "fp32-in" / "model")
    assert all(torch.equal(found[k], exact[k].bfloat16()) for k in found)
    assert distance(found, before) > 1e-3, "nothing was trained"


def curves(temporary):
    """100 steps of every model with experts. After step 20 rounding has grown, and the curve jumps when two experts of a token are so near that
    it goes to the other one: beside it, how far transformers in fp32 is from itself in fp64. What is asked for is the same loss on the whole."""
    for model in FAMILIES | VARIANTS:
        single, double = temporary / model, temporary / f"{model}-fp64"
        for folder, dtype in ((single, "float32"), (double, "float64")):
            folder.mkdir()
            train_experts(folder, ORACLE / model, steps=100, dtype=dtype)
        expected, exact = peer(single), peer(double)
        metrics = sheaf_train(single / "run.json", single / "out", f"model={ORACLE / model}", f"data.train={single / 'corpus.bin'}")
        errors = step_errors(model, metrics, expected)
        ours, theirs = (max(relative_errors(steps, exact)) for steps in (metrics, expected))
        print(f"{model}, loss {expected[0]['loss']:.2f} to {expected[-1]['loss']:.2f}: {max(errors[:20]):.1e} in 20 steps, then {max(errors[20:]):.1e}; "
              f"from fp64 {ours:.1e}, and transformers {theirs:.1e}", flush=True)
        assert max(errors[:20]) <= STEP_TOLERANCE, (model, errors)
        found, wanted = (sum(m["loss"] for m in steps[20:]) for steps in (metrics, expected))
        assert close(found, wanted, 1e-2), (model, errors)
        assert expected[-1]["loss"] < expected[0]["loss"] - 1, "hardly trained"


def main():
    temporary = pathlib.Path(tempfile.mkdtemp(prefix="sheaf-train-"))
    try:
        if WHOLE:
            return curves(temporary)
        for name in RUNS:
            same_steps(name, temporary)
        a_changed_setting_is_seen(temporary)
        resolved_run_repeats(temporary)
        bf16_stays_near(temporary)
        a_model_that_nobody_wants(temporary)
        split_masters_are_the_same_numbers(temporary)
        gradients_in_bf16(temporary)
        moments_in_bf16(temporary)
        written_models(temporary)
    finally:
        shutil.rmtree(temporary)
    print("ok")


main()
