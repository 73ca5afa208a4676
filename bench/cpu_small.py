"""One training step of examples/tiny_qwen3.json on the CPU: `sheaf train` against transformers + PyTorch, in one go, by turns.

    .venv/bin/python bench/cpu_small.py [--rounds 5] [--steps 20] [--threads 2] [--sheaf build/cpu/src/sheaf]

Both sides: the same model, rows, batch (that of examples/tiny.json), AdamW, clipping, fp32, threads. Speed: tokens of a step over its time, the
first 5 steps left out. The machine may be busy with other things, so the ratio is of the best step of each side over all rounds: what is
least disturbed; medians stand beside it. Memory: the peak of the process (VmHWM) above what the idle process with its libraries occupies;
for sheaf that is the peak of `sheaf doctor`, for the peer its resident size after its imports. Goals: speed >= 1.0, memory <= 0.8.
Prints a table and one line of JSON.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROWS, SEQ, WARM_UP = 8, 256, 5
LR, BETAS, DECAY, CLIP = 2e-3, (0.9, 0.95), 0.1, 1.0
CONFIG = "examples/tiny_qwen3.json"


def status(key):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def peer(corpus, steps):
    """The other side, in a process of its own: a plain loop. The fused AdamW is the fastest that PyTorch has."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    idle = status("VmRSS")
    torch.manual_seed(1)
    model = Qwen3ForCausalLM(Qwen3Config.from_json_file(CONFIG)).train()
    assert all(p.dtype == torch.float32 for p in model.parameters())
    adam = torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY, fused=True)
    data = torch.frombuffer(bytearray(pathlib.Path(corpus).read_bytes()), dtype=torch.uint8)
    times, losses = [], []
    for s in range(steps):
        begin = time.perf_counter()
        at = s * ROWS * SEQ
        ids = data[at:at + ROWS * SEQ].long().view(ROWS, SEQ)
        labels = data[at + 1:at + ROWS * SEQ + 1].long().view(ROWS, SEQ)
        loss = model(ids, labels=ids, shift_labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.step()
        adam.zero_grad()
        losses.append(loss.item())
        times.append(time.perf_counter() - begin)
    print(json.dumps({"times": times, "losses": losses, "idle": idle, "peak": status("VmHWM"), "threads": torch.get_num_threads()}))


def run(command):
    """Output and peak memory of a process."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}:\n{out}")
    return out, usage.ru_maxrss * 1024


def sheaf_run(sheaf, corpus, steps, output):
    settings = {"model": {"config": CONFIG}, "data": {"train": str(corpus), "seq_len": SEQ, "tokenizer": "bytes", "shuffle": False},
                "run": {"steps": steps, "output": str(output), "log_every": 1000, "device": "cpu"}, "train_micro_batch_size_per_gpu": ROWS,
                "gradient_clipping": CLIP, "optimizer": {"type": "AdamW", "params": {"lr": LR, "betas": BETAS, "weight_decay": DECAY}}}
    file = pathlib.Path(f"{output}.json")
    file.write_text(json.dumps(settings))
    _, peak = run([sheaf, "train", str(file)])
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {"times": [m["step_ms"] / 1e3 for m in metrics], "losses": [m["loss"] for m in metrics], "peak": peak,
            "planned": metrics[0]["peak_bytes"]}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--sheaf", default="build/cpu/src/sheaf")
    options.add_argument("--peer", help=argparse.SUPPRESS)
    o = options.parse_args()
    if o.peer:
        return peer(o.peer, o.steps)
    os.environ["OMP_NUM_THREADS"] = str(o.threads)
    sides = {"sheaf": [], "peer": []}
    with tempfile.TemporaryDirectory() as folder:
        corpus = pathlib.Path(folder) / "corpus.txt"
        text = b"".join(path.read_bytes() for path in sorted(pathlib.Path("src").rglob("*.cpp")))
        while len(text) <= o.steps * ROWS * SEQ:
            text += text
        corpus.write_bytes(text)
        idle = run([o.sheaf, "doctor"])[1]
        for i in range(o.rounds):
            sides["sheaf"].append(sheaf_run(o.sheaf, corpus, o.steps, pathlib.Path(folder) / f"out-{i}") | {"idle": idle})
            out, _ = run([sys.executable, __file__, "--peer", str(corpus), "--steps", str(o.steps)])
            sides["peer"].append(json.loads(out.splitlines()[-1]))
    for side, runs in sides.items():    # both learn: initial weights differ, so the curves agree only roughly
        assert all(r["losses"][-1] < r["losses"][0] - 1 for r in runs), (side, runs[0]["losses"])

    report = {"bench": "cpu_small", "threads": o.threads, "rounds": o.rounds, "steps": o.steps, "tokens_per_step": ROWS * SEQ}
    print(f"{'':8}{'tokens/s best':>15}{'median':>9}{'worst':>9}{'idle MiB':>10}{'peak MiB':>10}{'above idle':>12}")
    for side, runs in sides.items():
        speeds = [ROWS * SEQ / t for r in runs for t in r["times"][WARM_UP:]]
        above = [r["peak"] - r["idle"] for r in runs]
        numbers = {"best": max(speeds), "median": statistics.median(speeds), "worst": min(speeds),
                   "memory_above_idle": statistics.median(above), "memory_min": min(above), "memory_max": max(above), "idle": runs[0]["idle"]}
        report[side] = {key: round(value) for key, value in numbers.items()}
        print(f"{side:8}{numbers['best']:15.0f}{numbers['median']:9.0f}{numbers['worst']:9.0f}{runs[0]['idle'] / 2**20:10.0f}"
              f"{statistics.median(r['peak'] for r in runs) / 2**20:10.0f}{numbers['memory_above_idle'] / 2**20:12.1f}")
    report["sheaf"]["planned"] = sides["sheaf"][0]["planned"]
    report["speed_ratio"] = round(report["sheaf"]["best"] / report["peer"]["best"], 3)
    report["speed_ratio_of_medians"] = round(report["sheaf"]["median"] / report["peer"]["median"], 3)
    report["memory_ratio"] = round(report["sheaf"]["memory_above_idle"] / report["peer"]["memory_above_idle"], 3)
    print(f"speed: {report['speed_ratio']} of the peer's (medians: {report['speed_ratio_of_medians']}; goal 1.0)   "
          f"memory: {report['memory_ratio']} of the peer's (goal 0.8)")
    print(json.dumps(report))


main()
