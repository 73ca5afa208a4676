"""kill_test.py SHEAF [number of kills [of ranks]]: a run that saves every second step dies by SIGKILL at random moments, is resumed after each, and
in the end has the losses and the model of the run that nobody disturbed."""
import os
import pathlib
import random
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent))    # python -I leaves it out
from case import SHEAF, Case, sheaf

KILLS = int(sys.argv.pop(1)) if len(sys.argv) > 1 else 8
RANKS = int(sys.argv.pop(1)) if len(sys.argv) > 1 else 1
SEED = int(os.environ.get("SHEAF_KILL_SEED", "0"))
STEPS = 75 * KILLS    # steps of a millisecond: enough that the last kill still finds a run


# Every rank writes a file of each checkpoint.
MESH = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}} if RANKS > 1 else {}


class Kill(Case):
    RUN = {"scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-3, "warmup_num_steps": 4, "warmup_type": "linear"}}} | MESH

    def checkpoints(self, pattern):
        return {p.name for p in (self.output / "checkpoints").glob(pattern)}

    def wait_until(self, process, happened):
        """True if it did before the process ended."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if happened():
                return True
            if process.poll() is not None:
                return happened()
        self.fail("nothing happened for a minute")

    def test_a_run_killed_at_any_moment_goes_on_with_the_same_bits(self):
        begin = time.monotonic()
        self.train(f"run.steps={STEPS}", f"run.nproc={RANKS}", "run.log_every=1000000", **self.RUN)
        whole, model = self.numbers(), (self.output / "model/model.safetensors").read_bytes()
        command = [SHEAF, "train", str(self.run_file(**self.RUN)), f"run.steps={STEPS}", f"run.nproc={RANKS}", "run.save_every=2", "run.keep=3", "run.log_every=1000000"]
        rng, start, counts, attempts, reached = random.Random(SEED), None, dict.fromkeys(("starting", "between writes", "during a write"), 0), 0, 0
        while sum(counts.values()) < KILLS:
            attempts += 1
            self.assertLess(attempts, 2 * KILLS + 10, f"the run ends before it can be killed: {counts}")
            before, launched = self.checkpoints("step_????????"), time.monotonic()
            process = subprocess.Popen(command + ["--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            news = lambda: self.checkpoints("step_????????") - before
            kind = rng.random() if start else 1
            if kind < 0.2:    # while it starts: libraries, weights, the checkpoint
                time.sleep(rng.uniform(0, start))
            else:
                if self.wait_until(process, news):
                    start = min(start or 60, time.monotonic() - launched)
                if kind < 0.5:    # any moment
                    time.sleep(rng.uniform(0, 0.02))
                else:    # some instant of a write: its temporary folder has just appeared
                    self.wait_until(process, lambda: self.checkpoints("*.tmp-*"))
                    time.sleep(rng.uniform(0, 0.004))
            alive = process.poll() is None
            process.kill()
            _, stderr = process.communicate()
            self.assertEqual(stderr, "")
            if alive:
                counts["during a write" if self.checkpoints("*.tmp-*") else "between writes" if news() else "starting"] += 1
            # A checkpoint that was complete stays, but for those that `keep` lets go; what has its name is complete.
            now = max((int(name[5:]) for name in self.checkpoints("step_????????")), default=0)
            self.assertGreaterEqual(now, reached)
            reached = now
        done = sheaf(*command[1:], "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.numbers(), whole)
        self.assertEqual((self.output / "model/model.safetensors").read_bytes(), model)
        self.assertFalse(self.checkpoints("*.tmp*"))
        self.assertGreaterEqual(counts["during a write"], KILLS // 5, counts)
        print(f"{KILLS} kills{f' of {RANKS} ranks' if RANKS > 1 else ''}: {counts['during a write']} during a write, {counts['between writes']} between writes, {counts['starting']} while "
              f"starting; all resumed, losses of {STEPS} steps and the model equal; {time.monotonic() - begin:.0f} s")


unittest.main()
