"""Training runs by PyTorch + transformers, which `sheaf train` repeats (tests/engine/train_test.py): FOLDER/train_NAME/
{run.json, corpus.bin, corpus.idx, steps.json, final.safetensors}. A plain loop: a forward per micro-batch or document piece, the sum of its
losses over the count of the whole step, torch.optim.Adam(W), clip_grad_norm_, DeepSpeed's rates. run.json lacks the paths: model, data.train,
run.output.
"""
import json
import math

from files import write_megatron

STEPS, SEQ, BATCH = 20, 24, 4
LINEAR = {"type": "WarmupLR", "params": {"warmup_min_lr": 0, "warmup_max_lr": 1e-3, "warmup_num_steps": 6, "warmup_type": "linear"}}
COSINE = {"type": "WarmupCosineLR", "params": {"total_num_steps": STEPS, "warmup_num_steps": 5, "warmup_min_ratio": 0.1, "cos_min_ratio": 0.05,
                                               "warmup_type": "linear"}}


def rate(scheduler, lr, update):
    """Update s (from 1) uses index s - 2; index -1 is what the scheduler's constructor leaves: the minimum, 0 for the cosine."""
    p, i = scheduler["params"], update - 2
    warmup = p["warmup_num_steps"]
    if scheduler["type"] == "WarmupLR":
        share = 0 if i < 0 else min(1, i / warmup)
        return p["warmup_min_lr"] + (p["warmup_max_lr"] - p["warmup_min_lr"]) * share
    if i < 0:
        return 0.0
    if i < warmup:
        return lr * (p["warmup_min_ratio"] + (1 - p["warmup_min_ratio"]) * i / warmup)
    progress = min(1, (i - warmup + 1) / (p["total_num_steps"] - warmup))
    return lr * (p["cos_min_ratio"] + (1 - p["cos_min_ratio"]) * (1 + math.cos(math.pi * progress)) / 2)


def concat_rows(tokens):
    """A row is a list of pieces; a piece is the tokens that one attention sees, and the one after them."""
    return [[tokens[i * SEQ:(i + 1) * SEQ + 1]] for i in range((len(tokens) - 1) // SEQ)]


def document_rows(tokens, sizes):
    """Next-fit in order. A document of n tokens takes n - 1 positions; a longer one is cut where pieces share their boundary token."""
    rows, room, begin = [[]], SEQ, 0
    for size in sizes:
        document, begin = tokens[begin:begin + size], begin + size
        for at in range(0, size - 1, SEQ):
            piece = document[at:at + SEQ + 1]
            if len(piece) - 1 > room:
                rows.append([])
                room = SEQ
            rows[-1].append(piece)
            room -= len(piece) - 1
    return rows


def inputs(rows, accumulation, packing):
    """What goes through the network at once: a micro-batch, or a piece of a document, which has no padding and needs no mask."""
    import torch

    if packing == "documents":
        return [torch.tensor([piece]) for row in rows for piece in row]
    micro = len(rows) // accumulation
    return [torch.tensor([piece for row in rows[i:i + micro] for piece in row]) for i in range(0, len(rows), micro)]


# Norms are 3 to 5: some steps are clipped and some are not. Adam hardly sees a factor that all gradients share.
def train(folder, source, scheduler, clip=4.0, optimizer="AdamW", packing="concat", steps=STEPS, accumulation=2, dtype="float32", **params):
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    config = json.loads((source / "config.json").read_text())
    # A corpus of 15 steps and some rows more: the second epoch begins in step 16, and the rows that fill no step are dropped.
    rng = torch.Generator().manual_seed(len(source.name))
    sizes = torch.randint(2, 2 * SEQ, (400,), generator=rng).tolist() if packing == "documents" else [15 * BATCH * SEQ + 2 * SEQ + 5]
    tokens = torch.randint(0, config["vocab_size"], (sum(sizes),), generator=rng).tolist()
    if packing == "documents":
        while len(document_rows(tokens, sizes)) > 15 * BATCH + 2:
            sizes.pop()
        tokens = tokens[:sum(sizes)]
    rows = document_rows(tokens, sizes) if packing == "documents" else concat_rows(tokens)
    assert len(rows) == 15 * BATCH + 2
    write_megatron(folder / "corpus", tokens, sizes, range(len(sizes) + 1), 8)

    lr = 1e-3    # not more: beyond it the order of sums alone moves the curve
    params = {"lr": lr, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1} | params
    run = {"model": "?", "data": {"train": "?", "seq_len": SEQ, "shuffle": False, "packing": packing},
           "run": {"steps": steps, "output": "?"}, "train_batch_size": BATCH, "gradient_accumulation_steps": accumulation, "gradient_clipping": clip,
           "optimizer": {"type": optimizer, "params": params}, "scheduler": scheduler}
    (folder / "run.json").write_text(json.dumps(run, indent=2))

    net = AutoModelForCausalLM.from_pretrained(source, attn_implementation="eager", experts_implementation="eager", dtype=getattr(torch, dtype))
    net.train()
    coupled = optimizer == "Adam" and not params.get("adam_w_mode", True)
    adam = (torch.optim.Adam if coupled else torch.optim.AdamW)(net.parameters(), lr=lr, betas=tuple(params["betas"]), eps=params["eps"],
                                                                weight_decay=params["weight_decay"])
    found = []
    for s in range(steps):
        place = s % 15 * BATCH
        batches = inputs(rows[place:place + BATCH], accumulation, packing)
        count = sum(batch[:, 1:].numel() for batch in batches)
        loss, more = 0.0, {}
        adam.zero_grad()
        for batch in batches:
            out = net(batch[:, :-1])
            part = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum") / count
            if "aux_loss" in out:    # quadratic in what it is taken over: these models have one micro-batch
                aux_loss = net.config.router_aux_loss_coef * out.aux_loss
                part, more = part + aux_loss, {"aux_loss": aux_loss.item()}
            part.backward()
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), clip if clip > 0 else math.inf).item()
        adam.param_groups[0]["lr"] = rate(scheduler, lr, s + 1)
        adam.step()
        found.append({"step": s + 1, "loss": loss, "grad_norm": norm, "lr": adam.param_groups[0]["lr"], "tokens": count} | more)
    assert clip == 0 or 4 <= sum(step["grad_norm"] > clip for step in found) <= steps - 4, "clipping hardly matters"
    (folder / "steps.json").write_text(json.dumps(found, indent=1))
    buffers = {name: b for name, b in net.named_buffers() if name in net.state_dict()}    # what experts are chosen by
    final = dict(net.named_parameters()) | buffers
    save_file({name: t.detach().clone().contiguous() for name, t in final.items()}, folder / "final.safetensors")


def train_llama(folder):
    train(folder, folder.parent / "llama", LINEAR, clip=4.7)


def train_mistral(folder):
    train(folder, folder.parent / "mistral_window", COSINE)


def train_qwen2(folder):
    train(folder, folder.parent / "qwen2", COSINE)


def train_qwen3(folder):
    train(folder, folder.parent / "qwen3", LINEAR, clip=3.7)


def train_documents(folder):
    train(folder, folder.parent / "qwen3_bias_layer_types", LINEAR, packing="documents")


def train_adam(folder):
    train(folder, folder.parent / "llama_tied", COSINE, clip=0, optimizer="Adam", adam_w_mode=False)


# ---- mixtures of experts
# Each family once, with its auxiliary loss if it has one. Half of the channels of glm4_moe's k are not rotated: their bias has no gradient but
# noise, which AdamW would make a step of.
FAMILIES = {"mixtral_aux_window": dict(clip=3.9), "qwen2_moe_sliding_aux": dict(clip=4.6), "qwen3_moe_sliding_aux": dict(clip=2.9),
            "olmoe_clip_aux": dict(clip=3.7), "deepseek_v2_groups_yarn": dict(clip=3.8), "deepseek_v3": dict(clip=3.7),
            "glm4_moe": dict(clip=3.5, eps=1e-5), "gpt_oss_aux": dict(clip=3.8), "ernie4_5_moe_aux": dict(clip=5.4),
            "minimax_m2_aux": dict(clip=3.6), "llama4": dict(clip=3.9)}
# The others, but for gpt_oss: some of its activations lie so near the corners of the clamp that the curve in fp32 and the one in fp64, both by
# transformers, part at step 9.
VARIANTS = {"mixtral": dict(clip=4.6), "qwen2_moe": dict(clip=3.0), "qwen3_moe": dict(clip=2.85), "olmoe": dict(clip=3.3),
            "deepseek_v2": dict(clip=4.2), "deepseek_v3_yarn": dict(clip=3.9), "glm4_moe_groups_qk_norm": dict(clip=4.0),
            "ernie4_5_moe": dict(clip=3.4), "minimax_m2": dict(clip=3.6), "llama4_top2": dict(clip=3.2)}


def train_experts(folder, source, **more):
    train(folder, source, LINEAR, accumulation=1, **(FAMILIES | VARIANTS)[source.name], **more)


def run_of(model):
    def make(folder):
        train_experts(folder, folder.parent / model)
    make.__name__ = f"train_{model}"
    return make


RUNS = (train_llama, train_mistral, train_qwen2, train_qwen3, train_documents, train_adam, *map(run_of, FAMILIES))
