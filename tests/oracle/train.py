"""Training runs by PyTorch + transformers, which `sheaf train` repeats (tests/engine/train_test.py): FOLDER/train_NAME/
{run.json, corpus.bin, corpus.idx, steps.json, final.safetensors}. A plain loop: a forward per document piece, the sum of its losses over
the count of the whole step, torch.optim.Adam(W), clip_grad_norm_, DeepSpeed's rates. run.json lacks the paths: model, data.train, run.output.
"""
import json
import math

from files import write_megatron

STEPS, SEQ, MICRO, ACCUMULATION = 20, 24, 2, 2
BATCH = MICRO * ACCUMULATION
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


# Norms are 3 to 5: some steps are clipped and some are not. Adam hardly sees a factor that all gradients share.
def train(folder, model, scheduler, clip=4.0, optimizer="AdamW", packing="concat", **params):
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    config = json.loads((folder.parent / model / "config.json").read_text())
    # A corpus of 15 steps and some rows more: the second epoch begins in step 16, and the rows that fill no step are dropped.
    rng = torch.Generator().manual_seed(len(model))
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
           "run": {"steps": STEPS, "output": "?"}, "train_micro_batch_size_per_gpu": MICRO, "gradient_accumulation_steps": ACCUMULATION,
           "gradient_clipping": clip, "optimizer": {"type": optimizer, "params": params}, "scheduler": scheduler}
    (folder / "run.json").write_text(json.dumps(run, indent=2))

    net = AutoModelForCausalLM.from_pretrained(folder.parent / model, attn_implementation="eager", dtype=torch.float32).train()
    coupled = optimizer == "Adam" and not params.get("adam_w_mode", True)
    adam = (torch.optim.Adam if coupled else torch.optim.AdamW)(net.parameters(), lr=lr, betas=tuple(params["betas"]), eps=params["eps"],
                                                                weight_decay=params["weight_decay"])
    steps = []
    for s in range(STEPS):
        place = s % 15 * BATCH
        pieces = [torch.tensor([piece]) for row in rows[place:place + BATCH] for piece in row]
        count = sum(piece.numel() - 1 for piece in pieces)
        loss = 0.0
        adam.zero_grad()
        for piece in pieces:
            logits = net(piece[:, :-1]).logits
            part = torch.nn.functional.cross_entropy(logits.flatten(0, 1), piece[0, 1:], reduction="sum") / count
            part.backward()
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), clip if clip > 0 else math.inf).item()
        adam.param_groups[0]["lr"] = rate(scheduler, lr, s + 1)
        adam.step()
        steps.append({"step": s + 1, "loss": loss, "grad_norm": norm, "lr": adam.param_groups[0]["lr"], "tokens": count})
    assert clip == 0 or 4 <= sum(step["grad_norm"] > clip for step in steps) <= STEPS - 4, "clipping hardly matters"
    (folder / "steps.json").write_text(json.dumps(steps, indent=1))
    save_file({name: p.detach().clone().contiguous() for name, p in net.named_parameters()}, folder / "final.safetensors")


def train_llama(folder):
    train(folder, "llama", LINEAR, clip=4.7)


def train_mistral(folder):
    train(folder, "mistral_window", COSINE)


def train_qwen2(folder):
    train(folder, "qwen2", COSINE)


def train_qwen3(folder):
    train(folder, "qwen3", LINEAR, clip=3.7)


def train_documents(folder):
    train(folder, "qwen3_bias_layer_types", LINEAR, packing="documents")


def train_adam(folder):
    train(folder, "llama_tied", COSINE, clip=0, optimizer="Adam", adam_w_mode=False)


RUNS = (train_llama, train_mistral, train_qwen2, train_qwen3, train_documents, train_adam)
