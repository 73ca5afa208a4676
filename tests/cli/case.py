"""What the tests of the built program share. The first argument of the script that imports it is the program."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import files

SHEAF = str(pathlib.Path(sys.argv.pop(1)).absolute())


def sheaf(*args, **options):
    return subprocess.run([SHEAF, *map(str, args)], capture_output=True, text=True, timeout=120, **options)


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.at = pathlib.Path(tempfile.mkdtemp(prefix="sheaf-cli-"))
        cls.model = files.write_model(cls.at / "model")
        cls.corpus = cls.at / "corpus.txt"
        cls.corpus.write_bytes(files.text(1000))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.at)

    def run_file(self, **changes):
        """A run that works, but for `changes` (None takes a key away); its output folder is self.output."""
        self.count = getattr(self, "count", 0) + 1
        self.output = self.at / f"out-{self.id()}-{self.count}"
        run = {"model": str(self.model), "data": {"train": str(self.corpus), "seq_len": 8, "tokenizer": "bytes", "shuffle": False},
               "run": {"steps": 3, "output": str(self.output)}, "train_micro_batch_size_per_gpu": 2,
               "optimizer": {"params": {"lr": 1e-3}}} | changes
        path = self.at / f"run-{self.id()}-{self.count}.json"
        path.write_text(json.dumps({key: value for key, value in run.items() if value is not None}, indent=1))
        return path

    def train(self, *overrides, code=0, **changes):
        done = sheaf("train", self.run_file(**changes), *overrides)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def metrics(self):
        return [json.loads(line) for line in (self.output / "metrics.jsonl").read_text().splitlines()]

    def numbers(self):
        """What must be equal bit for bit when a run is repeated: all but times."""
        return [(m["step"], m["loss"], m["grad_norm"], m["lr"], m["tokens"]) for m in self.metrics()]

    def refused(self, done, *says):
        """The user's fault: exit code 2, at most 8 lines naming what was found, no trace of the program's inside, nothing on disk."""
        if os.environ.get("SHEAF_VERBOSE"):
            print(done.stderr)
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertTrue(done.stderr.startswith("sheaf: "), done.stderr)
        self.assertLessEqual(len(done.stderr.splitlines()), 8, done.stderr)
        for inside in ("frame #", ".cpp:", "internal error", "exception", "terminate"):
            self.assertNotIn(inside, done.stderr)
        for part in says:
            self.assertIn(part, done.stderr)
        if hasattr(self, "output"):
            self.assertFalse(self.output.exists(), list(self.output.glob("*")) if self.output.exists() else "")

    def train_refused(self, *says, overrides=(), **changes):
        self.refused(sheaf("train", self.run_file(**changes), *overrides), *says)
