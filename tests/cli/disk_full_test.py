"""disk_full_test.py SHEAF: a run whose disk is full says so, keeps what is complete, and ends or goes on as run.stop_on_save_error says."""
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent))    # python -I leaves it out
from case import SHEAF, Case, sheaf

QUIET = "run.log_every=1000000"


class FullDisk(Case):
    """A file system of 424 KiB in memory; a checkpoint of the test's model takes about 70."""

    def setUp(self):
        self.disk = pathlib.Path(tempfile.mkdtemp(prefix="sheaf-disk-"))
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=424k", "tmpfs", self.disk], capture_output=True)
        if mounted.returncode != 0:
            self.disk.rmdir()
            self.skipTest("only root may mount a file system of 424 KiB")
        self.addCleanup(lambda: (subprocess.run(["umount", "-l", self.disk], check=True), self.disk.rmdir()))
        self.out = self.disk / "out"

    def fill(self):
        with open(self.disk / "filler", "wb", buffering=0) as file:
            for size in (4096, 1):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    pass

    def command(self, *more):
        return [SHEAF, "train", str(self.run_file()), f"run.output={self.out}", QUIET, *more]

    def steps(self):
        return sorted(int(p.name[5:]) for p in (self.out / "checkpoints").glob("step_????????"))

    def is_sound(self):
        done = sheaf("checkpoint", "verify", self.out)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(list((self.out / "checkpoints").glob("*.tmp*")))

    def same_as_undisturbed(self, steps):
        self.output = self.out
        found, model = self.numbers(), (self.out / "model/model.safetensors").read_bytes()
        self.train(f"run.steps={steps}", QUIET)
        self.assertEqual(found, self.numbers())
        self.assertEqual(model, (self.output / "model/model.safetensors").read_bytes())

    def test_the_run_goes_on_keeps_what_is_complete_and_resumes_when_there_is_space(self):
        done = subprocess.run(self.command("run.steps=20", "run.save_every=2"), capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("WARNING: checkpoint not written, the last complete one stays", done.stdout)
        self.assertIn("No space left on device", done.stdout)
        self.assertIn("20 steps", done.stdout)
        kept = self.steps()
        self.assertTrue(kept and kept[-1] < 20, kept)    # the space was for some of them
        self.is_sound()
        for step in kept[:-1]:
            subprocess.run(["rm", "-r", self.out / f"checkpoints/step_{step:08}"], check=True)
        again = subprocess.run(self.command("run.steps=24", "run.save_every=30", "--resume"), capture_output=True, text=True, timeout=60)
        self.assertIn(f"resumed after step {kept[-1]}", again.stdout, again.stderr)
        self.same_as_undisturbed(24)

    def test_the_run_stops_if_it_shall(self):
        stop = "run.stop_on_save_error=true"
        done = subprocess.run(self.command("run.steps=20", "run.save_every=2", stop), capture_output=True, text=True, timeout=60)
        self.refused_while_running(done, "checkpoint not written", "No space left on device", str(self.out))
        kept = self.steps()
        self.assertTrue(kept and kept[-1] < 20, kept)
        self.is_sound()
        self.assertFalse((self.out / "model").exists())
        for step in kept[:-1]:
            subprocess.run(["rm", "-r", self.out / f"checkpoints/step_{step:08}"], check=True)
        again = subprocess.run(self.command("run.steps=20", "run.save_every=30", stop, "--resume"), capture_output=True, text=True, timeout=60)
        self.assertEqual(again.returncode, 0, again.stderr)
        self.same_as_undisturbed(20)

    def refused_while_running(self, done, *says):
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertTrue(done.stderr.startswith("sheaf: ") and len(done.stderr.splitlines()) <= 8, done.stderr)
        for part in says:
            self.assertIn(part, done.stderr)

    def fill_while_running(self, *more):
        """Fills the disk once the run has written some lines; gives the process when it has said so."""
        process = subprocess.Popen(self.command("run.steps=2000", *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        log, deadline = self.out / "metrics.jsonl", time.monotonic() + 60
        while not (log.exists() and log.stat().st_size > 1000) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        self.fill()
        return process

    def test_metrics_wait_in_memory_until_there_is_space(self):
        process = self.fill_while_running()
        for line in process.stdout:
            if "metrics.jsonl: cannot be written: No space left on device" in line:
                break
        (self.disk / "filler").unlink()
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 2, out + err)    # 2000 lines of metrics are more than this disk holds
        self.assertIn("metrics are written again: nothing is missing", out)
        self.assertIn("the last lines could not be written: No space left on device", err)
        self.output = self.out
        lines = (self.out / "metrics.jsonl").read_text().splitlines()[:-1]    # the last one may be cut
        self.assertEqual([line.split(",")[0] for line in lines], [f'{{"step":{i + 1}' for i in range(len(lines))])

    def test_metrics_that_cannot_be_written_stop_the_run_if_they_shall(self):
        process = self.fill_while_running("run.stop_on_save_error=true")
        out, err = process.communicate(timeout=60)
        self.refused_while_running(subprocess.CompletedProcess([], process.returncode, out, err), "metrics.jsonl",
                                   "No space left on device")

    def test_a_model_that_cannot_be_written_is_named_and_resume_writes_it(self):
        # The checkpoint of the last step fits, the model does not.
        self.out.mkdir()
        (self.disk / "filler").write_bytes(bytes(424 * 1024 - 100 * 1024))
        done = subprocess.run(self.command("run.steps=4", "run.save_every=4"), capture_output=True, text=True, timeout=60)
        self.refused_while_running(done, str(self.out / "model"), "No space left on device")
        self.assertEqual([p.name for p in self.out.glob("model*")], [])
        self.is_sound()
        (self.disk / "filler").unlink()
        again = subprocess.run(self.command("run.steps=4", "run.save_every=4", "--resume"), capture_output=True, text=True, timeout=60)
        self.assertEqual(again.returncode, 0, again.stderr)
        self.same_as_undisturbed(4)


class LimitedFiles(Case):
    """No root needed: no file may be larger than a limit, so that a checkpoint fails and the small files do not."""

    def limited(self, *more, size=30_000):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))    # a checkpoint has 55,000 bytes, the model 19,000
        return subprocess.run([SHEAF, "train", str(self.run_file()), "run.steps=4", "run.save_every=2", *more], capture_output=True, text=True,
                              timeout=60, preexec_fn=limit, restore_signals=False)    # Python ignores SIGXFSZ: the write fails instead

    def test_a_checkpoint_that_cannot_be_written(self):
        done = self.limited()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("WARNING: checkpoint not written"), 2, done.stdout)
        self.assertIn("File too large", done.stdout)
        self.assertEqual(list((self.output / "checkpoints").iterdir()), [])
        done = self.limited("run.stop_on_save_error=true")
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("checkpoint not written", done.stderr)

    def test_parts_of_two_ranks_that_cannot_be_written(self):
        mesh = ("run.nproc=4", "zero_optimization.stage=1", "zero_optimization.mics_shard_size=2")    # the other two hold the same
        done = self.limited(*mesh, size=25_000)    # a part has 28,000
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("WARNING: checkpoint not written"), 2, done.stdout)
        for rank in range(2):
            self.assertEqual(done.stdout.count(f"rank_{rank:05}.safetensors: cannot be written: File too large"), 2, done.stdout)
        self.assertEqual(list((self.output / "checkpoints").iterdir()), [])
        done = self.limited(*mesh, "run.stop_on_save_error=true", size=25_000)
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("checkpoint not written", done.stderr)
        self.assertLessEqual(len(done.stderr.splitlines()), 8, done.stderr)


unittest.main()
