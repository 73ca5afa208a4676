"""`sheaf train` of models with experts on meshes against one rank:  experts_test.py SHEAF [folder of the oracle] [--whole]

Experts cut over ranks, alone and folded with data, sequence and tensor parallelism, under every ZeRO stage, by each way that tokens reach
them: each step's loss (auxiliary loss included), gradient norm and load of the experts, and the final weights. Among the models are routers
that send all tokens to a few experts, so that others, and whole ranks, get none. By default each family meets some of the meshes; --whole is
every model on every mesh, stage and plan. Then experts in another order, frozen parameters, biases that balance, and checkpoints that change
everything at once.
"""
import itertools
import json
import pathlib
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent))    # python -I leaves it out
from meshes import Against, ONE_RANK, STEP_TOLERANCE, WEIGHT_TOLERANCE, Runs, arguments, distance, mesh, metrics, model_bytes, numbers, step_distance

SHEAF, ORACLE, WHOLE = arguments()
STEPS = 20
MODELS = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v2", "deepseek_v3", "glm4_moe", "gpt_oss", "ernie4_5_moe", "minimax_m2",
          "llama4", "mixtral_aux_window", "qwen2_moe_sliding_aux", "qwen3_moe_sliding_aux", "olmoe_clip_aux", "deepseek_v2_groups_yarn",
          "deepseek_v3_yarn", "glm4_moe_groups_qk_norm", "gpt_oss_aux", "ernie4_5_moe_aux", "minimax_m2_aux", "llama4_top2")
# The clamp of gpt_oss has a corner: an oracle's model whose activations lie at it would turn there sooner on one mesh than on another.
GPT_OSS = {"model_type": "gpt_oss", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
           "num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.15, "num_local_experts": 8, "num_experts_per_tok": 3, "sliding_window": 5,
           "output_router_logits": True, "router_aux_loss_coef": 0.1, "eos_token_id": 0}
# Half of the channels of glm4_moe's k are not rotated: their bias has no gradient but noise, which AdamW would make a step of.
MORE = {"glm4_moe": ("optimizer.params.eps=1e-5",)}
PLANS = ("exact", "dedup", "gather")


def experts(ep=1, etp=1, **more):
    return mesh(**more) | {"expert_parallel.enabled": "true", "expert_parallel.autoep_size": ep, "expert_parallel.expert_tensor_parallel_size": etp}


MESHES = {"ep2": dict(ep=2, dp=2), "ep4": dict(ep=4, dp=4), "ep2 etp2": dict(ep=2, etp=2, dp=4), "dp4 ep2": dict(ep=2, dp=4),
          "dp2 tp2 ep4": dict(ep=4, dp=2, tp=2), "dp2 sp2 tp2 ep8": dict(ep=8, dp=2, sp=2, tp=2), "sp3 ep3": dict(ep=3, sp=3),
          "dp2 sp2 tp2 ep2 etp2": dict(ep=2, etp=2, dp=2, sp=2, tp=2), "sp2 tp2 ep4": dict(ep=4, sp=2, tp=2)}
NUM_EXPERTS = {"qwen3_moe_sliding_aux": 6, "mixtral_aux_window": 7, "gpt_oss_aux": 6, "llama4": 4, "llama4_top2": 4}    # others: 8


def fits(model, on):
    return on["ep"] <= NUM_EXPERTS.get(model, 8)


class Routed(Against):
    SUMMED_OTHERWISE = (*(f"run.tile_rows={rows}" for rows in (3, 7, 13, 19)), *(f"gradient_accumulation_steps={m}" for m in (1, 2, 4)),
                        *(f"optimizer.params.betas=[0.9, {beta}]" for beta in (0.9499999, 0.9500001)))
    dead = 0    # layers that left an expert without tokens in the first step

    def file(self, model, packing, accumulation):
        return super().file(GPT_OSS if model == "gpt_oss" else model, packing, accumulation)

    def check(self, model, name, on, packing, accumulation, *more):
        return super().check(model, name, on, packing, accumulation, *more, *MORE.get(model, ()))

    def compare_more(self, found, wanted):
        """Loads are counts: equal unless a token had two experts at the same score."""
        self.dead += sum(layer["dead"] > 0 for layer in found[0]["load"])
        loads = max((abs(a["entropy"] - b["entropy"]) for m, e in zip(found, wanted) for a, b in zip(m["load"], e["load"])), default=0)
        return f", loads {loads:.1e}", loads <= 1e-6


def every_family_trains_on_any_mesh(against):
    cases = [(*case, PLANS[i % 3]) for i, case in enumerate(itertools.product(MODELS, MESHES, range(4)))]
    if not WHOLE:    # each model twice, each mesh some times with every stage and plan
        names = list(MESHES)
        cases = [(model, names[(2 * i + j) % len(names)], (i + j) % 4, PLANS[(i + 2 * j) % 3]) for i, model in enumerate(MODELS) for j in range(2)]
    for i, (model, name, zero, plan) in enumerate(cases):
        if fits(model, MESHES[name]):
            packing, accumulation = (("concat", 1), ("documents", 2))[i // 2 % 2]    # the number of micro-batches is part of the loss
            against.check(model, f"{name} zero-{zero} {plan}", experts(zero=zero, **MESHES[name]) | {"run.expert_plan": plan}, packing,
                          accumulation)
    assert against.dead > 0, "no expert was without tokens"


def experts_cut_by_the_tensor_parallel_ranks(against):
    """Without the section experts follow autotp_size."""
    for model in MODELS if WHOLE else ("qwen3_moe", "gpt_oss"):
        against.check(model, "dp2 tp2 zero-2", mesh(dp=2, tp=2, zero=2), "documents", 2)


def bf16_stays_near_one_rank(against):
    """A bf16 number is off by up to 2^-9, the loss is a mean, in which roundings average out; a decision of the router may fall otherwise."""
    for model in MODELS if WHOLE else ("mixtral", "gpt_oss", "deepseek_v3"):
        file = against.runs.file(GPT_OSS if model == "gpt_oss" else model, "documents", 2)
        more = ("run.steps=6", "bf16.enabled=true")
        one, other = against.runs.train(file, ONE_RANK, *more), against.runs.train(file, experts(ep=2, dp=4, zero=3) | {"run.expert_plan": "dedup"}, *more)
        worst = max(abs(m["loss"] - e["loss"]) / e["loss"] for m, e in zip(metrics(other), metrics(one), strict=True))
        print(f"{model} in bf16: losses within {worst:.1e} of one rank's", flush=True)
        assert 0 < worst <= 2**-8, model


def experts_in_another_order(against):
    order = [3, 0, 6, 5, 7, 1, 2, 4]
    for name, plan in (("ep4", "exact"), ("dp2 sp2 tp2 ep2 etp2", "dedup"), ("ep4", "gather")):
        on = experts(zero=3, **MESHES[name]) | {"run.expert_plan": plan, "run.expert_order": json.dumps(order)}
        against.check("qwen3_moe", f"{name} in another order, {plan}", on, "documents", 2)


def frozen_parameters(against):
    for pattern in ('["*experts*"]', '["model.embed*", "*self_attn*", "*mlp.gate*"]'):
        output = against.check("qwen3_moe", "dp4 ep2 zero-3", experts(zero=3, **MESHES["dp4 ep2"]), "documents", 2, f"run.freeze={pattern}")
        assert output and distance(output / "model", ORACLE / "qwen3_moe") > 1e-4, "nothing was trained"


def biases_that_balance(against):
    rate = "expert_parallel={\"enabled\": true, \"load_balance_coeff\": 0.01}"
    balanced = 'expert_parallel={"enabled": true, "autoep_size": 4, "load_balance_coeff": 0.01}'
    file = against.runs.file("deepseek_v3", "documents", 2)
    one, other = against.runs.train(file, ONE_RANK, rate), against.runs.train(file, mesh(dp=4, zero=2), balanced)
    assert step_distance(metrics(other), metrics(one)) <= STEP_TOLERANCE
    assert distance(other / "model", one / "model") <= WEIGHT_TOLERANCE
    plain = against.of("deepseek_v3", "documents", 2)[1]
    assert step_distance(metrics(plain), metrics(one)) > STEP_TOLERANCE, "the biases changed nothing"


def computed_again_is_kept(against):
    """What the backward computes again, it computes from the same numbers by the same kernels: bit for bit."""
    for model in MODELS if WHOLE else ("qwen3_moe", "deepseek_v3", "gpt_oss"):
        file = against.runs.file(GPT_OSS if model == "gpt_oss" else model, "documents", 2)
        for on in (ONE_RANK, experts(zero=3, ep=2, etp=2, dp=4) | {"run.expert_plan": "exact"}):
            kept, *again = (against.runs.train(file, on, "run.steps=4", f"run.recompute={what}") for what in ("none", "selective", "block"))
            for other in again:
                assert numbers(other) == numbers(kept) and model_bytes(other / "model") == model_bytes(kept / "model"), (model, on)
        print(f"{model}: the same bits with what is computed again", flush=True)


def checkpoints_change_everything_at_once(against):
    on = {name: experts(zero=zero, **MESHES[of]) | {"run.expert_plan": plan} for name, of, zero, plan in (
        ("ep4 zero-3", "ep4", 3, "exact"), ("folded zero-1", "dp2 sp2 tp2 ep2 etp2", 1, "dedup"), ("tp2 ep4 zero-2", "dp2 tp2 ep4", 2, "gather"))}
    on |= {"one rank": ONE_RANK, "other order": on["ep4 zero-3"] | {"run.expert_order": "[3, 0, 6, 5, 7, 1, 2, 4]"}}
    models = ("qwen3_moe", "deepseek_v3", "gpt_oss") if WHOLE else ("deepseek_v3",)
    pairs = list(itertools.permutations(on, 2)) if WHOLE else list(zip(on, list(on)[1:] + list(on)[:1]))
    for model in models:
        file, half = against.runs.file(model, "documents", 2), ("run.steps=8", "run.save_every=4")
        runs = {name: against.runs.train(file, where, *half) for name, where in on.items()}
        whole = runs["one rank"]
        for name, output in runs.items():
            assert step_distance(metrics(output), metrics(whole)) <= STEP_TOLERANCE, (model, name)
        for saved, then in pairs + [(name, name) for name in on]:
            output = against.runs.output()
            shutil.copytree(runs[saved], output, ignore=shutil.ignore_patterns("model", "step_00000008"))
            against.runs.train(file, on[then], "--resume", *half, output=output)
            if saved == then:
                assert numbers(output) == numbers(runs[saved]) and model_bytes(output / "model") == model_bytes(runs[saved] / "model"), (model, saved)
            assert step_distance(metrics(output), metrics(whole)) <= STEP_TOLERANCE, (model, saved, then)
            assert distance(output / "model", whole / "model") <= WEIGHT_TOLERANCE, (model, saved, then)
        print(f"{model}: {len(pairs)} changes of the mesh between checkpoints", flush=True)


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sheaf-experts-"))
    try:
        against = Routed(Runs(SHEAF, ORACLE, folder, STEPS))
        every_family_trains_on_any_mesh(against)
        experts_cut_by_the_tensor_parallel_ranks(against)
        bf16_stays_near_one_rank(against)
        experts_in_another_order(against)
        frozen_parameters(against)
        biases_that_balance(against)
        computed_again_is_kept(against)
        checkpoints_change_everything_at_once(against)
        assert len(against.parted) <= against.count // 50, "runs part too often: " + "\n".join(against.parted)
        print(f"{len(against.parted)} of {against.count} runs met a near tie of a router or a clamp's corner, which fell as it does on one rank for rounding alone")
        print(f"{against.count} runs: steps within {against.worst:.1e}, weights within {against.worst_weights:.1e}")
        assert not against.failed, f"{len(against.failed)} failed:\n" + "\n".join(against.failed)
    finally:
        shutil.rmtree(folder)
    print("ok")


main()
