"""`sheaf train --deepspeed` against DeepSpeed:  deepspeed_test.py SHEAF [folder of the oracle]

One ds_config.json, one model, the same rows in the same order, two ranks on the CPU, ZeRO-1, 2 and 3: the losses of 20 steps. Models with
experts run with AutoEP, half of the experts on each rank. DeepSpeed's ranks are this script with --rank, started by torchrun.

Without ZeRO DeepSpeed 0.19.6 clips a model with experts by the mean of its ranks' norms, which is not the norm: losses of mixtral are then off
by 3e-5, and by 2e-7 without clipping. With ZeRO its norm is right, and nothing else had to be left out. No auxiliary loss: over there it is
that of a rank's own tokens.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent))    # python -I leaves it out
from meshes import SEQ, metrics, write_corpus

STEPS, MICRO, ACCUMULATION, RANKS = 20, 2, 2, 2
BATCH = MICRO * ACCUMULATION * RANKS
EXPERTS = ("mixtral", "qwen3_moe")
# Model, ZeRO stage, and a norm to clip at that some of its norms exceed and some do not.
RUNS = (("llama", 1, 3.45), ("qwen2", 2, 3.15), ("qwen3", 3, 2.6), ("mixtral", 1, 3.6), ("mixtral", 3, 3.6), ("qwen3_moe", 2, 2.2),
        ("qwen3_moe", 3, 2.2))
# fp32 on both sides, at rates up to 1e-3: what is left is the order of sums, and DeepSpeed's own sums over its buckets.
TOLERANCE = 1e-4


def configuration(model, stage, clip):
    experts = {"expert_parallel": {"enabled": True, "autoep_size": RANKS, "preset_model": model}} if model in EXPERTS else {}
    return {"train_batch_size": BATCH, "train_micro_batch_size_per_gpu": MICRO, "gradient_accumulation_steps": ACCUMULATION, "gradient_clipping": clip,
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "torch_adam": True}},
            "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 0, "warmup_max_lr": 1e-3, "warmup_num_steps": 4, "warmup_type": "linear"}},
            "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0}} | experts


def rank(folder, model):
    """A rank of DeepSpeed. Its rows are those that Sheaf's rank has: micro-batch after micro-batch of the whole batch, cut over the ranks."""
    import deepspeed
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager", dtype=torch.float32).train()
    engine, *_ = deepspeed.initialize(model=net, model_parameters=net.parameters(), config=str(folder / "ds_config.json"))
    layers = [module for module in engine.module.modules() if type(module).__name__ == "AutoEPMoELayer"]
    assert len(layers) == (net.config.num_hidden_layers if net.config.model_type in EXPERTS else 0)
    assert all(layer.num_local_experts * RANKS == layer.num_experts for layer in layers), "experts are not cut over the ranks"
    index, found = torch.distributed.get_rank(), []
    tokens = numpy.fromfile(folder / "data.bin", numpy.int32).astype(numpy.int64)
    for step in range(STEPS):
        losses = []
        for m in range(ACCUMULATION):
            first = step * BATCH + (m * RANKS + index) * MICRO
            rows = torch.from_numpy(numpy.stack([tokens[i * SEQ:(i + 1) * SEQ + 1] for i in range(first, first + MICRO)]))
            loss = torch.nn.functional.cross_entropy(engine(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
            lr = engine.optimizer.param_groups[0]["lr"]
            engine.backward(loss)
            engine.step()
            losses.append(loss.detach())
        loss = torch.stack(losses).mean()    # every row has as many tokens
        torch.distributed.all_reduce(loss)
        found.append({"loss": loss.item() / RANKS, "lr": lr, "grad_norm": float(engine.get_global_grad_norm())})
    if index == 0:
        (folder / "deepspeed.json").write_text(json.dumps(found))


def deepspeed_run(folder, model):
    python = pathlib.Path(sys.executable)
    # It builds an extension with ninja, once; python -I of each rank would leave out what torchrun sets.
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PATH": f"{python.parent}:{os.environ['PATH']}",
                                "TORCH_EXTENSIONS_DIR": str(pathlib.Path(".cache/torch_extensions").absolute())}
    done = subprocess.run([python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS), __file__, "--rank", folder, model],
                          env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, (done.stdout[-4000:], done.stderr[-4000:])
    return json.loads((folder / "deepspeed.json").read_text())


def compare(sheaf, model, folder, stage, clip):
    folder.mkdir()
    (folder / "ds_config.json").write_text(json.dumps(configuration(model.name, stage, clip)))
    vocab = json.loads((model / "config.json").read_text())["vocab_size"]
    data = write_corpus(folder / "data", "concat", vocab)
    expected = deepspeed_run(folder, model)
    subprocess.run([sheaf, "train", "--deepspeed", folder / "ds_config.json", "--model", model, "--data", data, "--nproc", str(RANKS), "--device", "cpu",
                    f"data.seq_len={SEQ}", "data.shuffle=false", f"run.steps={STEPS}", f"run.output={folder / 'out'}"], check=True,
                   capture_output=True, timeout=120)
    found = metrics(folder / "out")
    assert len(found) == len(expected) == STEPS
    worst = {"loss": 0.0, "grad_norm": 0.0}
    for m, e in zip(found, expected):
        assert abs(m["lr"] - e["lr"]) <= 1e-15, (m, e)    # one formula in fp64: its last bit may differ
        for key in worst:
            worst[key] = max(worst[key], abs(m[key] - e[key]) / e[key])
    print(f"{model.name}, ZeRO-{stage}: losses within {worst['loss']:.1e} of DeepSpeed's, gradient norms within {worst['grad_norm']:.1e}", flush=True)
    assert max(worst.values()) <= TOLERANCE, (stage, found, expected)
    assert abs(found[0]["loss"] - found[-1]["loss"]) > 1e-2, "nothing was trained"
    assert 4 <= sum(m["grad_norm"] > clip for m in found) <= STEPS - 4, "clipping hardly matters"


def main():
    if "--rank" in sys.argv:
        return rank(pathlib.Path(sys.argv[-2]), sys.argv[-1])
    sheaf = pathlib.Path(sys.argv[1]).absolute()
    oracle = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ".cache/oracle").absolute()
    temporary = pathlib.Path(tempfile.mkdtemp(prefix="sheaf-deepspeed-"))
    try:
        for name, stage, clip in RUNS:
            compare(sheaf, oracle / name, temporary / f"{name}-{stage}", stage, clip)
    finally:
        shutil.rmtree(temporary)
    print("ok")


main()
