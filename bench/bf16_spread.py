"""Is a bf16 run of Sheaf one of transformers' bf16 runs?  python3 bench/bf16_spread.py --sheaf build/cuda/src/sheaf [--steps 200] [--seeds 5]
                                                          [--device cuda] [--output FOLDER]

A small Qwen3 on the bytes of this repository's sources. transformers trains it from as many starts as there are seeds, with the same data:
fp32 weights, torch.autocast to bf16, AdamW, clipping. Sheaf trains from the same starts, in bf16 over fp32 masters. Prints for windows of
steps the losses of both, how far the runs of transformers lie apart, and how far Sheaf's lie from those with the same start: the rounding of
bf16 grows with the steps, as it would between two machines. Exit status 1 if in some step Sheaf's mean is outside of the range of
transformers' runs.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from gpu_train import write_tokens

SEQ, ROWS, RATE, CLIP = 256, 8, 1e-3, 1.0
CONFIG = {"model_type": "qwen3", "vocab_size": 256, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 8,
          "num_key_value_heads": 4, "head_dim": 64, "tie_word_embeddings": True, "max_position_embeddings": SEQ, "bos_token_id": None, "eos_token_id": None}


def corpus(count):
    """The bytes of the sources, over and over."""
    root = pathlib.Path(__file__).parent.parent / "src"
    text = b"".join(path.read_bytes() for path in sorted(root.rglob("*.cpp")))
    return (text * (count // len(text) + 1))[:count]


def train_peer(start, tokens, steps, device):
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, attn_implementation="sdpa").to(device)
    adam = torch.optim.AdamW(net.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    ids = torch.tensor(list(tokens), device=device)
    losses = []
    for step in range(steps):
        first = step * ROWS * SEQ
        rows = torch.stack([ids[first + i * SEQ:first + (i + 1) * SEQ + 1] for i in range(ROWS)])
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = net(rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        adam.step()
        losses.append(loss.item())
    return losses


def train_sheaf(sheaf, start, folder, steps, device):
    run = {"model": str(start), "data": {"train": str(folder / "corpus.bin"), "seq_len": SEQ, "shuffle": False},
           "run": {"steps": steps, "output": str(folder / f"out-{start.name}"), "device": device, "write_model": False, "log_every": 1000},
           "train_batch_size": ROWS, "gradient_clipping": CLIP, "bf16": {"enabled": True},
           "optimizer": {"type": "AdamW", "params": {"lr": RATE, "betas": [0.9, 0.95], "weight_decay": 0.1}}}
    (folder / "run.json").write_text(json.dumps(run))
    subprocess.run([sheaf, "train", folder / "run.json"], check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line)["loss"] for line in open(folder / f"out-{start.name}" / "metrics.jsonl")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheaf", required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", default="")
    arguments = parser.parse_args()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    peers, ours = [], []
    with tempfile.TemporaryDirectory(prefix="sheaf-spread-") as name:
        folder = pathlib.Path(name)
        tokens = corpus(arguments.steps * ROWS * SEQ + 1)
        write_tokens(folder, list(tokens), [len(tokens)])
        fields = dict(CONFIG)
        config = AutoConfig.for_model(fields.pop("model_type"), **fields)
        for seed in range(arguments.seeds):
            torch.manual_seed(seed)
            start = folder / f"start-{seed}"
            AutoModelForCausalLM.from_config(config).save_pretrained(start)
            peers.append(train_peer(start, tokens, arguments.steps, arguments.device))
            ours.append(train_sheaf(arguments.sheaf, start, folder, arguments.steps, arguments.device))
            print(f"start {seed}: last losses {peers[-1][-1]:.4f} (transformers) {ours[-1][-1]:.4f} (Sheaf)", flush=True)

    outside = [step for step in range(arguments.steps)
               if not min(p[step] for p in peers) <= statistics.mean(o[step] for o in ours) <= max(p[step] for p in peers)]
    apart = [max(p[step] for p in peers) - min(p[step] for p in peers) for step in range(arguments.steps)]
    beside = [max(abs(o[step] - p[step]) for o, p in zip(ours, peers)) for step in range(arguments.steps)]
    print(f"\n{'steps':>10}{'transformers':>14}{'Sheaf':>10}{'range of peers':>16}{'farthest from its peer':>24}")
    for begin in range(0, arguments.steps, 20):
        steps = range(begin, min(begin + 20, arguments.steps))
        mean = lambda runs: statistics.mean(run[step] for run in runs for step in steps)
        print(f"{f'{begin + 1}-{steps[-1] + 1}':>10}{mean(peers):14.4f}{mean(ours):10.4f}{statistics.mean(apart[s] for s in steps):16.4f}"
              f"{max(beside[s] for s in steps):24.4f}")
    print(f"{len(outside)} of {arguments.steps} steps with Sheaf's mean outside of the range")
    if arguments.output:
        (pathlib.Path(arguments.output) / "bf16_spread.json").write_text(json.dumps({"transformers": peers, "sheaf": ours}) + "\n")
    sys.exit(bool(outside))


main()
