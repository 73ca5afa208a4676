"""families_test.py SHEAF [folder of the oracle [beginning of names]]: every model trains on the GPU as it does on the CPU.

Losses and gradient norms of some updates of each of the oracle's models, in dense rows and in rows of documents long enough for the GPU's own
kernels: in fp32 the CPU's but for the order of sums, in bf16 near them. Exit status 77 where there is no GPU.
"""
import concurrent.futures
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "oracle"))    # python -I leaves it out
from files import write_megatron

SHEAF = pathlib.Path(sys.argv[1]).absolute()
ORACLE = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ".cache/oracle").absolute()
NAMES = sys.argv[3] if len(sys.argv) > 3 else ""
STEPS, ROWS, SEQ = 5, 4, 192
AT_ONCE = 6    # runs, each with a few threads
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "3"}
# fp32: two orders of sums, as on meshes (tests/engine/meshes.py; measured: 4e-7). bf16: a number is off by up to 2^-9, of a mean over many
# less is left; a norm is of numbers that were rounded several times on their way, and a router's near tie may fall otherwise (measured:
# 2.1e-3 and 1.8e-2).
BOUNDS = {"fp32": {"loss": 1e-5, "grad_norm": 1e-5}, "bf16": {"loss": 2**-8, "grad_norm": 5e-2}}


def models():
    """A model of each shape; those of rotations and spellings have the shapes of others."""
    for path in sorted(ORACLE.glob("*/config.json")):
        if path.parent.name.startswith(NAMES) and not path.parent.name.startswith(("rope_", "train_", "llama_old", "llama_padding")):
            yield path.parent.name, json.loads(path.read_text())


def corpus(folder, packing, vocab):
    path = folder / f"{packing}-{vocab}"
    rng = numpy.random.default_rng(5)
    tokens = (STEPS + 1) * ROWS * SEQ + 1
    sizes = rng.integers(2, SEQ, 2 * tokens // SEQ).tolist() if packing == "documents" else [tokens]
    write_megatron(path, rng.integers(0, vocab, sum(sizes)), sizes, range(len(sizes) + 1), 4)
    return str(path.with_suffix(".bin"))


def curve(folder, name, config, data, packing, device, dtype):
    """Per update the loss and the norm."""
    at = folder / f"{name}-{packing}-{device}-{dtype}"
    run = {"model": {"config": config}, "data": {"train": data, "seq_len": SEQ, "packing": packing}, "train_batch_size": ROWS,
           "bf16": {"enabled": dtype == "bf16"}, "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
           "run": {"steps": STEPS, "device": device, "output": str(at), "write_model": False}}
    at.with_suffix(".json").write_text(json.dumps(run))
    done = subprocess.run([SHEAF, "train", at.with_suffix(".json")], capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    if done.returncode != 0:
        return f"exit code {done.returncode}: {done.stderr.strip()[-600:]}"
    return [json.loads(line) for line in (at / "metrics.jsonl").read_text().splitlines()]


def difference(found, wanted, key):
    """The largest of all updates, relative; NaN and none count as infinite."""
    each = [abs((f[key] if f[key] is not None else math.nan) - w[key]) / w[key] for f, w in zip(found, wanted, strict=True)]
    return max(math.inf if math.isnan(x) else x for x in each)


def check(folder, name, config, data, packing):
    failed = []
    wanted = curve(folder, name, config, data, packing, "cpu", "fp32")
    if isinstance(wanted, str):
        return [f"{name}, {packing}, CPU: {wanted}"]
    for dtype, bounds in BOUNDS.items():
        found = curve(folder, name, config, data, packing, "cuda", dtype)
        where = f"{name}, {packing}, {dtype}"
        if isinstance(found, str):
            failed.append(f"{where}: {found}")
            continue
        off = {key: difference(found, wanted, key) for key in bounds}
        good = all(off[key] <= bound for key, bound in bounds.items())
        print("passed" if good else "FAILED", where, ", ".join(f"{key} off by {x:.1e}" for key, x in off.items()), flush=True)
        if not good:
            failed.append(f"{where}: {off}")
    return failed


def main():
    if not shutil.which("nvidia-smi") or "GPU" not in subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout:
        print("no GPU")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="sheaf-families-") as name, concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        folder = pathlib.Path(name)
        given = [(n, c, packing) for n, c in models() for packing in ("concat", "documents")]
        data = {key: corpus(folder, *key) for key in {(packing, c["vocab_size"]) for _, c, packing in given}}
        jobs = [pool.submit(check, folder, n, c, data[packing, c["vocab_size"]], packing) for n, c, packing in given]
        failed = [line for job in jobs for line in job.result()]
    assert jobs, f"no models in {ORACLE}"
    assert not failed, f"{len(failed)} failed:\n" + "\n".join(failed)
    print(f"{len(jobs)} models and packings\nok")


main()
