"""What the tests of runs on meshes share: meshes, models, data, runs and how they are compared."""
import json
import pathlib
import subprocess
import sys

import numpy
from safetensors.torch import load_file

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "oracle"))    # python -I leaves it out
from files import write_megatron

# Two fp32 programs that differ in the order of sums, at rates up to 1e-3: DESIGN.md section 5, measured in tests/oracle.
STEP_TOLERANCE, WEIGHT_TOLERANCE = 1e-5, 1e-4
SEQ, BATCH, CLIP = 22, 8, 2.6    # 22 tokens are cut unevenly over 4 ranks
TIMES = {"step_ms", "tokens_per_s", "peak_bytes"}
ONE_RANK = {}


def arguments():
    """Of the command line: SHEAF [folder of the oracle] [--whole]."""
    given = [a for a in sys.argv[1:] if a != "--whole"]
    return pathlib.Path(given[0]).absolute(), pathlib.Path(given[1] if len(given) > 1 else ".cache/oracle").absolute(), "--whole" in sys.argv


def mesh(dp=1, sp=1, tp=1, zero=0, **more):
    return {"run.nproc": dp * sp * tp, "sequence_parallel_size": sp, "tensor_parallel.autotp_size": tp, "zero_optimization.stage": zero,
            "zero_optimization.stage3_param_persistence_threshold": 0} | {f"zero_optimization.{key}": value for key, value in more.items()}


# Those of issue 5, shorter storage suffixes, and degrees that divide neither heads nor tokens. Models have 2 kv heads: tp4 and sp4 cut them further.
MESHES = {f"dp{dp} zero-{zero}": mesh(dp=dp, zero=zero) for dp in (2, 4) for zero in range(4)} | {
    "tp2": mesh(tp=2), "tp4": mesh(tp=4), "sp2": mesh(sp=2), "sp4": mesh(sp=4), "dp2 tp2": mesh(dp=2, tp=2), "dp2 sp2": mesh(dp=2, sp=2),
    "sp2 tp2": mesh(sp=2, tp=2), "dp2 sp2 tp2 zero-3": mesh(2, 2, 2, 3), "tp2 zero-3": mesh(tp=2, dp=2, zero=3),
    "sp2 zero-3": mesh(sp=2, zero=3), "dp2 sp2 zero-2": mesh(dp=2, sp=2, zero=2), "sp2 tp2 zero-1": mesh(sp=2, tp=2, zero=1),
    "MiCS": mesh(dp=4, zero=3, mics_shard_size=2), "MiCS zero-1": mesh(dp=4, zero=1, mics_shard_size=2),
    "hpZ": mesh(dp=4, zero=3, zero_hpz_partition_size=2), "MiCS dp2 sp2": mesh(dp=2, sp=2, zero=3, mics_shard_size=2),
    "hpZ dp2 tp2": mesh(dp=2, sp=2, tp=2, zero=3, zero_hpz_partition_size=2),
    "zero-3, small ones whole": mesh(dp=4, zero=3, stage3_param_persistence_threshold=64),
    "dp2 tp3 zero-3": mesh(dp=2, tp=3, zero=3), "sp3 tp2 zero-1": mesh(sp=3, tp=2, zero=1), "sp4 tp2 zero-3": mesh(sp=4, tp=2, zero=3)}

THREE_HEADS = {"hidden_size": 36, "intermediate_size": 50, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 3,
               "head_dim": 12, "vocab_size": 101, "initializer_range": 0.25, "model_type": "llama", "eos_token_id": 0}


def write_corpus(path, packing, vocab):
    """21 steps in one stream, or documents of 2 to 44 tokens: rows then have from a few to all of their tokens."""
    rng = numpy.random.default_rng(5)
    sizes = rng.integers(2, 2 * SEQ, 220).tolist() if packing == "documents" else [21 * BATCH * SEQ + 7]
    write_megatron(path, rng.integers(0, vocab, sum(sizes)), sizes, range(len(sizes) + 1), 4)
    return path.with_suffix(".bin")


class Runs:
    """Runs of one program in a temporary folder."""

    def __init__(self, sheaf, oracle, folder, steps):
        self.sheaf, self.folder, self.count = sheaf, folder, 0
        self.base = {"train_batch_size": BATCH, "gradient_clipping": CLIP, "optimizer": {"type": "AdamW", "params": {
            "lr": 1e-3, "betas": [0.9, 0.95], "weight_decay": 0.1}}, "run": {"steps": steps, "device": "cpu", "timeout_s": 60, "log_every": 1000},
            "scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-3, "warmup_num_steps": 4, "warmup_type": "linear"}}}
        self.oracle = oracle

    def corpus(self, packing, vocab):
        path = self.folder / f"{packing}-{vocab}.bin"
        return path if path.exists() else write_corpus(path.with_suffix(""), packing, vocab)

    def file(self, model, packing="concat", accumulation=1):
        """A run file without mesh and output folder. `model`: a folder of the oracle, or a configuration."""
        self.count += 1
        path = self.folder / f"run-{self.count}.json"
        given = isinstance(model, dict)
        vocab = (model if given else json.loads((self.oracle / model / "config.json").read_text()))["vocab_size"]
        run = self.base | {"model": {"config": model} if given else str(self.oracle / model), "gradient_accumulation_steps": accumulation,
                           "data": {"train": str(self.corpus(packing, vocab)), "seq_len": SEQ, "packing": packing}}
        path.write_text(json.dumps(run))
        return path

    def output(self):
        self.count += 1
        return self.folder / f"out-{self.count}"

    def command(self, file, on, output, *more):
        return [self.sheaf, "train", file, f"run.output={output}", *(f"{key}={value}" for key, value in on.items()), *more]

    def train(self, file, on, *more, output=None):
        """Trains and returns the output folder."""
        output = output or self.output()
        done = subprocess.run(self.command(file, on, output, *more), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (done.args, done.returncode, done.stdout, done.stderr)
        return output


def metrics(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def numbers(output):
    """What must be equal to the bit when a run is repeated: all but times."""
    return [{key: value for key, value in m.items() if key not in TIMES} for m in metrics(output)]


def model_bytes(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def distance(a, b):
    """||a - b|| / ||b|| of all tensors of two model folders together."""
    a, b = (load_file(folder / "model.safetensors") for folder in (a, b))
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    squares = [((a[k].double() - b[k].double()).square().sum(), b[k].double().square().sum()) for k in b]
    return (sum(s[0] for s in squares) / sum(s[1] for s in squares)).sqrt().item()


def step_distance(found, expected):
    """The largest relative difference of a loss or gradient norm; what is counted must be equal."""
    assert [m["step"] for m in found] == [m["step"] for m in expected]
    worst = 0.0
    for m, e in zip(found, expected):
        assert (m["tokens"], m["lr"]) == (e["tokens"], e["lr"]), (m, e)
        assert ("eval_loss" in m) == ("eval_loss" in e), (m, e)
        for key in ("loss", "grad_norm", "eval_loss"):
            if key in e:
                error = abs(m[key] - e[key]) / abs(e[key])
                assert error == error, (key, m, e)    # not NaN
                worst = max(worst, error)
    return worst


class Against:
    """One rank's runs, each made once, and what runs on meshes are beside them."""

    # Settings with which one rank adds in another order, or that differ from its own in the last bits. A kind of models whose curves may part
    # for that alone (a router's near tie, an activation at a clamp's corner) names some: what differs from one rank must be what one of these
    # computes.
    SUMMED_OTHERWISE = ()

    def __init__(self, runs):
        self.runs, self.found, self.worst, self.worst_weights, self.count, self.failed, self.parted = runs, {}, 0.0, 0.0, 0, [], []

    # What a kind of models adds.
    def file(self, model, packing, accumulation):
        return self.runs.file(model, packing, accumulation)

    def check_one_rank(self, key, expected):
        """Is the run of one rank one that others can be held against?"""

    def compare_more(self, found, wanted):
        """Of the metrics: what is said of it, and whether it is good."""
        return "", True

    def of(self, model, packing, accumulation, *more):
        key = (str(model), packing, accumulation, more)
        if key not in self.found:
            file = self.file(model, packing, accumulation)
            output = self.runs.train(file, ONE_RANK, *more)
            self.check_one_rank(key, metrics(output))
            self.found[key] = file, output
        return self.found[key]

    def check(self, model, name, on, packing, accumulation, *more):
        file, expected = self.of(model, packing, accumulation, *more)
        where = ", ".join((name, model if isinstance(model, str) else "3 heads", packing, f"accumulation {accumulation}", *more))
        self.count += 1
        try:
            output = self.runs.train(file, on, *more)
        except AssertionError as error:    # the others are still worth seeing
            _, code, _, stderr = error.args[0]
            self.failed.append(f"{where}: exit code {code}, {stderr}")
            print("FAILED", self.failed[-1], flush=True)
            return None
        good, steps, weights, said = self.compare(output, expected)
        for other in self.SUMMED_OTHERWISE if not good else ():
            again = self.compare(output, self.of(model, packing, accumulation, *more, other)[1])
            if again[0]:
                print(f"parted: {where} is {steps:.1e} from one rank, which is as far from itself with {other}", flush=True)
                self.parted.append(where)
                good, steps, weights, said = again
                break
        self.worst, self.worst_weights = max(self.worst, steps), max(self.worst_weights, weights)
        where += f": steps {steps:.1e}, weights {weights:.1e}{said}"
        print("passed" if good else "FAILED", where, flush=True)
        if not good:
            self.failed.append(where)
        return output

    def compare(self, output, expected):
        """Whether it is good; how far steps and weights are; what is said of them."""
        found, wanted = metrics(output), metrics(expected)
        steps, weights = step_distance(found, wanted), distance(output / "model", expected / "model")
        said, good = self.compare_more(found, wanted)
        return good and steps <= STEP_TOLERANCE and weights <= WEIGHT_TOLERANCE, steps, weights, said
