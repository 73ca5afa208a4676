"""Checkpoints of `sheaf train` across meshes:  resharding_test.py SHEAF [folder of the oracle] [--whole]

Saved in the middle on one mesh, resumed on another: stage, tp, sp and number of ranks change together. The losses that follow are those of
one rank that nobody disturbed; on the same mesh, they and the model are those of that mesh to the bit. By default each mesh is saved on and
resumed on; --whole is every pair.
"""
import itertools
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent))    # python -I leaves it out
from meshes import MESHES, ONE_RANK, STEP_TOLERANCE, WEIGHT_TOLERANCE, Runs, distance, metrics, arguments, model_bytes, numbers, step_distance

SHEAF, ORACLE, WHOLE = arguments()
SAVED, STEPS = 4, 8
MODELS = ("qwen2", "qwen3", "llama_padding_tied", "mistral_window")    # biases, norms of q and k, tied heads of an odd vocabulary
MESHES = {"one rank": ONE_RANK} | MESHES


class Saved:
    """Runs to the end, each made once, that have a checkpoint in the middle."""

    def __init__(self, runs):
        self.runs, self.found = runs, {}

    def of(self, model, name):
        if (model, name) not in self.found:
            file = self.runs.file(model, "documents")
            output = self.runs.train(file, MESHES[name], f"run.save_every={SAVED}")
            self.exports_what_the_run_wrote(output, (model, name))
            self.found[model, name] = file, output
        return self.found[model, name]

    def exports_what_the_run_wrote(self, output, where):
        exported = self.runs.output()
        subprocess.run([SHEAF, "checkpoint", "export", output, "--output", exported], check=True, capture_output=True)
        assert model_bytes(exported) == model_bytes(output / "model"), (where, distance(exported, output / "model"))

    def resumed(self, model, name, on):
        """The run as if it had been ended after the checkpoint in the middle, gone on with on another mesh."""
        file, whole = self.of(model, name)
        output = self.runs.output()
        shutil.copytree(whole, output, ignore=shutil.ignore_patterns("model", f"step_{STEPS:08}"))
        return self.runs.train(file, MESHES[on], "--resume", f"run.save_every={STEPS}", output=output)


def the_same_mesh_goes_on_with_the_same_bits(saved, model, name):
    _, whole = saved.of(model, name)
    resumed = saved.resumed(model, name, name)
    assert numbers(resumed) == numbers(whole), (model, name)
    assert model_bytes(resumed / "model") == model_bytes(whole / "model"), (model, name)


def another_mesh_goes_on_as_one_rank(saved, model, name, on):
    _, whole = saved.of(model, "one rank")
    resumed = saved.resumed(model, name, on)
    steps, weights = step_distance(metrics(resumed), metrics(whole)), distance(resumed / "model", whole / "model")
    if WHOLE:
        saved.exports_what_the_run_wrote(resumed, (model, name, on))
    print(f"{model}: {name} -> {on}: steps {steps:.1e}, weights {weights:.1e}", flush=True)
    assert steps <= STEP_TOLERANCE and weights <= WEIGHT_TOLERANCE, (model, name, on)


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sheaf-resharding-"))
    try:
        saved, names = Saved(Runs(SHEAF, ORACLE, folder, STEPS)), list(MESHES)
        for i, name in enumerate(names):
            the_same_mesh_goes_on_with_the_same_bits(saved, MODELS[i % len(MODELS)], name)
        # Seven further on in the list: another degree of everything.
        pairs = list(itertools.permutations(names, 2)) if WHOLE else [(name, names[(i + 7) % len(names)]) for i, name in enumerate(names)]
        for name, on in pairs:
            another_mesh_goes_on_as_one_rank(saved, MODELS[names.index(name) % len(MODELS)], name, on)
        print(f"{len(names)} meshes go on with the same bits, {len(pairs)} changes of the mesh")
    finally:
        shutil.rmtree(folder)
    print("ok")


main()
