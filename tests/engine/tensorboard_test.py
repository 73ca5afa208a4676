"""tensorboard_test.py SHEAF: the event files of a run, killed and resumed, read by TensorBoard's own reader, say what metrics.jsonl says."""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True    # no __pycache__ among the sources
SHEAF = pathlib.Path(sys.argv[1]).absolute()
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "cli"))    # python -I leaves it out
import files

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

NEVER_DROPS = {"scalars": 0}    # 0: keep all


def fp32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def curves(folder):
    events = EventAccumulator(str(folder), size_guidance=NEVER_DROPS)
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}, events


def same_as_metrics(output):
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    found, events = curves(output / "tensorboard")
    expected = {}
    for m in metrics:
        for key, value in m.items():
            if key != "step" and value is not None:
                expected.setdefault(key, []).append((m["step"], fp32(float(value))))
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    for key in expected:
        assert found[key] == expected[key], (key, len(found[key]), len(expected[key]))
    return metrics, events


def last_step(output):
    lines = (output / "metrics.jsonl").read_text().split("\n")[:-1]    # the last one may be half written
    return json.loads(lines[-1])["step"] if lines else 0


def check_records(path):
    """Every checksum, by TensorBoard's own function, and nothing after the last record."""
    data, at, count = path.read_bytes(), 0, 0
    while at < len(data):
        length, crc = struct.unpack_from("<QI", data, at)
        assert crc == masked_crc32c(data[at:at + 8])
        body = data[at + 12:at + 12 + length]
        assert struct.unpack_from("<I", data, at + 12 + length)[0] == masked_crc32c(body)
        at, count = at + 16 + length, count + 1
    return count


with tempfile.TemporaryDirectory(prefix="sheaf-tensorboard-") as name:
    at = pathlib.Path(name)
    files.write_model(at / "model")
    (at / "corpus.txt").write_bytes(files.text(1000))
    run = {"model": str(at / "model"), "data": {"train": str(at / "corpus.txt"), "seq_len": 8, "tokenizer": "bytes", "eval_split": 0.1},
           "run": {"steps": 400, "eval_every": 7, "output": str(at / "out"), "save_every": 50, "log_every": 1000}, "train_micro_batch_size_per_gpu": 2,
           "optimizer": {"params": {"lr": 1e-3}}}
    (at / "run.json").write_text(json.dumps(run))
    train = lambda *more: subprocess.run([SHEAF, "train", at / "run.json", *more], capture_output=True, text=True)

    before = time.time()
    done = train(f"run.output={at / 'whole'}")
    assert done.returncode == 0, done.stderr
    metrics, events = same_as_metrics(at / "whole")
    assert len(metrics) == 400 and sum("eval_loss" in m for m in metrics) == 58    # every 7th, and the last
    times = [e.wall_time for e in events.Scalars("loss")]
    assert before <= times[0] and times == sorted(times) and times[-1] <= time.time()
    (path,) = (at / "whole/tensorboard").iterdir()
    assert check_records(path) == 2 + 400    # version, start, updates

    # Killed between two checkpoints and in the middle of a record, then resumed, twice: one clean curve.
    for _ in range(2):
        process = subprocess.Popen([SHEAF, "train", at / "run.json", "--resume"], stdout=subprocess.DEVNULL)
        saved = lambda: sorted((at / "out/checkpoints").glob("step_????????"))
        first = len(saved()) if (at / "out").exists() else 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            # Updates behind the checkpoint: the record that loses its end belongs to one that is made again.
            if len(saved()) > first and last_step(at / "out") > int(saved()[-1].name.removeprefix("step_")) + 1:
                break
        process.kill()
        process.wait()
        newest = max((at / "out/tensorboard").iterdir(), key=lambda p: p.name)
        newest.write_bytes(newest.read_bytes()[:-7])
    done = train("--resume")
    assert done.returncode == 0 and "resumed after step" in done.stdout, done.stderr
    resumed, _ = same_as_metrics(at / "out")
    assert [m["loss"] for m in resumed] == [m["loss"] for m in metrics]
    assert len(list((at / "out/tensorboard").iterdir())) == 3
    # A run that never makes its loss finite again has gaps, and a scalar that says so.
    done = train("run.steps=5", "optimizer.params.lr=1e38", f"run.output={at / 'nan'}")
    same_as_metrics(at / "nan")
    assert curves(at / "nan/tensorboard")[0]["committed"] == [(s, 0.0) for s in range(2, 6)]
print("ok")
