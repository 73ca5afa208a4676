"""`sheaf train` on meshes against one rank:  meshes_test.py SHEAF [folder of the oracle] [--whole]

Every step's loss and gradient norm, the final weights, one evaluation in a run; the same bits when a mesh is run twice. By default each mesh
and each model occur some times; --whole is every model on every mesh.
"""
import itertools
import json
import pathlib
import random
import shutil
import sys
import tempfile

from safetensors.torch import load_file

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent))    # python -I leaves it out
from meshes import CLIP, MESHES, Against, ONE_RANK, STEP_TOLERANCE, THREE_HEADS, Runs, mesh, metrics, arguments, model_bytes, numbers, step_distance

SHEAF, ORACLE, WHOLE = arguments()
STEPS = 20
# Biases, tied heads, windows, an odd vocabulary with a padding token, norms of q and k.
MODELS = ("llama", "mistral_window", "qwen2", "qwen3", "llama_padding_tied", "qwen2_sliding_tied", "qwen3_bias_layer_types", "mistral_no_window")
KINDS = tuple(itertools.product(("concat", "documents"), (1, 2)))    # packing, accumulation


class Dense(Against):
    def check_one_rank(self, key, expected):
        norms = [m["grad_norm"] for m in expected]
        tokens = {m["tokens"] for m in expected}
        assert len(norms) == STEPS and sum(norm > CLIP for norm in norms) >= 4, (key, "clipping hardly matters", norms)
        assert (len(tokens) > STEPS // 2) == (key[1] == "documents"), tokens


def every_mesh_computes_what_one_rank_computes(against):
    cases = list(itertools.product(MODELS, MESHES, KINDS))
    if not WHOLE:
        cases = [(MODELS[i % len(MODELS)], name, KINDS[i // 3 % 4]) for i, name in enumerate(MESHES)]
    for model, name, kind in cases:
        against.check(model, name, MESHES[name], *kind)


def heads_that_do_not_divide(against):
    for name, on in (("tp2", mesh(tp=2)), ("sp2", mesh(sp=2)), ("sp2 tp2 zero-3", mesh(sp=2, tp=2, zero=3))):
        for packing in ("concat", "documents") if WHOLE else ("documents",):
            against.check(THREE_HEADS, name, on, packing, 1)


def any_plan_of_tensor_parallelism(against):
    """Each weight cut along its rows, its columns, or not, by chance."""
    rng = random.Random(3)
    weights = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")] + ["lm_head", "embed_tokens"]
    for _ in range(14 if WHOLE else 3):
        specs = [{"patterns": [f".*{name}\\.weight$"], "partition_type": rng.choice(["column", "row", "skip"])} for name in weights]
        on = rng.choice([mesh(tp=2), mesh(sp=2, tp=2, zero=3), mesh(dp=2, tp=2, zero=2), mesh(tp=4)])
        name = f"{on['run.nproc']} ranks, " + " ".join(spec["partition_type"] for spec in specs)
        against.check(rng.choice(("qwen2", "llama", "mistral_window", "qwen3")), name,
                      on | {"tensor_parallel.partition_config.layer_specs": json.dumps(specs)}, rng.choice(("documents", "concat")), 1)


def evaluation_in_a_run(against):
    """Held-out rows that do not fill the last batch."""
    for name in MESHES if WHOLE else ("dp2 sp2", "dp2 sp2 tp2 zero-3"):
        for packing in ("concat", "documents"):
            output = against.check("qwen3", name, MESHES[name], packing, 1, "data.eval_split=0.05", "run.eval_every=7")
            assert not output or [m["step"] for m in metrics(output) if "eval_loss" in m] == [7, 14, 20]


def a_changed_setting_is_seen(against):
    """The test of the test: small changes of what ranks do together must leave the tolerance."""
    file, expected = against.of("qwen3", "documents", 1)
    for change in ("optimizer.params.weight_decay=0.09", "optimizer.params.betas=[0.9, 0.953]", "optimizer.params.eps=1e-6"):
        output = against.runs.train(file, MESHES["dp2 sp2"], change)
        assert step_distance(metrics(output), metrics(expected)) > STEP_TOLERANCE, change


def tiles_and_recomputation(against):
    """The head in tiles adds its weight's gradient in another order; what is computed again is the same to the bit.

    It needs less memory where activations are the most that a step holds: not on all of the many meshes, on some it is the update.
    """
    runs = saves = 0
    for model, name in itertools.product(MODELS, MESHES) if WHOLE else (("qwen3", "dp2 sp2 tp2 zero-3"), ("llama_padding_tied", "dp2 tp2")):
        file, expected = against.of(model, "documents", 2)
        kept, *again = (against.runs.train(file, MESHES[name], "run.tile_rows=5", f"run.recompute={what}") for what in ("none", "selective", "block"))
        assert 0 < step_distance(metrics(kept), metrics(expected)) <= STEP_TOLERANCE, (model, name)
        most, least = (metrics(run)[0]["peak_bytes"] for run in (kept, again[-1]))
        for limit in (least, (most + least) / 2) if most > least else ():    # a plan says what is used, so the least will do
            again.append(against.runs.train(file, MESHES[name], "run.tile_rows=5", f"run.memory_limit={limit / 2**30}"))
            assert metrics(again[-1])[0]["peak_bytes"] <= limit, (model, name, limit)
        for other in again:
            assert numbers(other) == numbers(kept) and model_bytes(other / "model") == model_bytes(kept / "model"), (model, name)
            assert metrics(other)[0]["peak_bytes"] <= most, (model, name)
            runs, saves = runs + 1, saves + (metrics(other)[0]["peak_bytes"] < most)
    assert saves == runs or WHOLE and saves > runs / 3, f"of {runs} runs that compute again {saves} save memory"


def the_same_mesh_gives_the_same_bits(runs):
    """And in bf16 it stays near one rank: a bf16 number is off by up to 2^-9, and the loss is a mean, in which roundings average out."""
    for model, name in itertools.product(MODELS, MESHES) if WHOLE else (("qwen2", "dp4 zero-2"), ("mistral_window", "dp2 sp2 tp2 zero-3")):
        for more in ((), ("bf16.enabled=true",)):
            file = runs.file(model, "documents", 2)
            first, again = (runs.train(file, MESHES[name], "run.steps=6", *more) for _ in range(2))
            assert numbers(first) == numbers(again), (model, name, more)
            assert model_bytes(first / "model") == model_bytes(again / "model"), (model, name, more)
        one = runs.train(file, ONE_RANK, "run.steps=6", "bf16.enabled=true")
        worst = max(abs(m["loss"] - e["loss"]) / e["loss"] for m, e in zip(metrics(first), metrics(one), strict=True))
        print(f"{name}, {model} in bf16: losses within {worst:.1e} of one rank's", flush=True)
        assert 0 < worst <= 2**-9, (model, name)


def stages_need_less_and_less(runs):
    """Most of this model is its embedding and head, so that states and not activations decide. Uneven pieces and the granule of 16
    elements are a few of 50,000 elements."""
    config = THREE_HEADS | {"vocab_size": 700, "num_attention_heads": 4, "num_key_value_heads": 2}    # tp cuts evenly
    file = runs.file(config)
    peaks = [metrics(runs.train(file, mesh(dp=4, zero=zero) | {"gradient_accumulation_steps": 2}, "run.steps=1"))[0]["peak_bytes"] for zero in range(4)]
    assert peaks[3] < peaks[2] < peaks[1] < peaks[0], peaks
    print("peak bytes of stages 0 to 3:", peaks)
    # Each rank writes what it holds of parameters and moments.
    for zero, on in ((1, mesh(dp=4, zero=1)), (3, mesh(dp=2, sp=2, zero=3)), (3, mesh(dp=2, tp=2, zero=3))):
        output = runs.train(file, on, "run.steps=1", "run.save_every=1")
        held = [sum(t.numel() for t in load_file(path).values()) for path in sorted((output / "checkpoints").glob("*/rank_*"))]
        assert len(held) == 4 and max(held) <= 1.02 * sum(held) / 4, (on, held)    # pieces begin at multiples of 16 elements
    held = [sum(t.numel() for t in load_file(path).values()) for path in (runs.train(file, mesh(dp=4), "run.steps=1", "run.save_every=1") /
                                                                         "checkpoints").glob("*/rank_*")]
    assert len(held) == 1    # the test of the test: stage 0 holds everything everywhere, and rank 0 writes


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sheaf-mesh-"))
    try:
        runs = Runs(SHEAF, ORACLE, folder, STEPS)
        against = Dense(runs)
        every_mesh_computes_what_one_rank_computes(against)
        heads_that_do_not_divide(against)
        any_plan_of_tensor_parallelism(against)
        evaluation_in_a_run(against)
        a_changed_setting_is_seen(against)
        tiles_and_recomputation(against)
        print(f"{against.count} runs on meshes: losses and norms within {against.worst:.1e}, weights within {against.worst_weights:.1e} of one rank's")
        the_same_mesh_gives_the_same_bits(runs)
        stages_need_less_and_less(runs)
    finally:
        shutil.rmtree(folder)
    assert not against.failed, "\n".join(against.failed)
    print("ok")


main()
