"""mpi_test.py SHEAF MPIRUN: `sheaf train` with a process for each rank. The numbers of rank threads to the bit; whatever happens to one rank,
all end soon, with a message and an exit code that is not 0."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent))    # python -I leaves it out
from case import SHEAF, Case, sheaf

MPIRUN = sys.argv.pop(1)
# OpenMPI in containers, as root and with more ranks than cores; other MPIs do not know these.
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
                   OMPI_MCA_btl_vader_single_copy_mechanism="none", OMPI_MCA_mpi_yield_when_idle="1")
# 2 heads over tp, tokens over sp: all kinds of collectives.
MESH = {"sequence_parallel_size": 2, "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}, "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2, "gradient_clipping": 0.5}


class Mpi(Case):
    def start(self, ranks, *arguments):
        process = subprocess.Popen([MPIRUN, "-n", str(ranks), SHEAF, "train", *map(str, arguments)], env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.kill, process)    # of a test that failed
        return process

    def kill(self, process):
        if process.poll() is None:
            for pid in self.ranks(process):
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.communicate()

    def end(self, process, within=60):
        """stdout, stderr; fails if it takes longer."""
        try:
            return process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            self.kill(process)
            self.fail(f"still running after {within} s")

    def mpirun(self, ranks, *arguments, code=0):
        process = self.start(ranks, *arguments)
        out, err = self.end(process)
        self.assertEqual(process.returncode, code, out + err)
        return out + err

    def ranks(self, process):
        """The processes that mpirun started, by rank."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == process.pid:
                    variables = (entry / "environ").read_bytes().split(b"\0")
                    found |= {int(v[21:]): int(entry.name) for v in variables if v.startswith(b"OMPI_COMM_WORLD_RANK=")}
            except OSError:
                continue    # it ended meanwhile
        return [found[rank] for rank in sorted(found)]

    def wait_for_steps(self, process, steps):
        log, deadline = self.output / "metrics.jsonl", time.monotonic() + 60
        while not (log.exists() and log.read_bytes().count(b"\n") >= steps):
            self.assertIsNone(process.poll(), process.communicate() if process.poll() is not None else "")
            self.assertLess(time.monotonic(), deadline, "no steps")
            time.sleep(0.01)

    def written(self):
        return self.numbers(), (self.output / "model/model.safetensors").read_bytes()

    def test_processes_compute_the_bits_of_threads(self):
        for ranks, more in ((4, ()), (4, ("bf16.enabled=true",)), (2, ("tensor_parallel.autotp_size=2", "sequence_parallel_size=1")),
                            (4, ("data.eval_split=0.2", "run.eval_every=2", "zero_optimization.stage=1"))):
            self.train("--nproc", ranks, *more, **MESH)
            threads = self.written()
            self.mpirun(ranks, self.run_file(**MESH), *more)
            self.assertEqual(self.written(), threads, more)

    def test_checkpoints_go_from_processes_to_threads_and_back(self):
        self.train("--nproc", "4", "run.steps=6", **MESH)
        whole = self.written()
        file = self.run_file(**MESH)
        self.mpirun(4, file, "run.steps=2", "run.save_every=2")
        done = sheaf("train", file, "--nproc", "4", "run.steps=4", "run.save_every=2", "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("resumed after step 4", self.mpirun(4, file, "run.steps=6", "run.save_every=2", "--resume"))
        self.assertEqual(self.written(), whole)

    def test_a_killed_process_ends_the_run_which_goes_on_with_two(self):
        file = self.run_file(**MESH)
        for victim in (0, 2):
            before = len(self.metrics()) if victim else 0
            process = self.start(4, file, "run.steps=1000000", "run.save_every=5", "run.keep=2", "--resume")
            self.wait_for_steps(process, before + 12)
            begin = time.monotonic()
            os.kill(self.ranks(process)[victim], signal.SIGKILL)
            _, err = self.end(process, within=15)
            self.assertNotEqual(process.returncode, 0)
            self.assertTrue(err)
            self.assertLess(time.monotonic() - begin, 15)
            for path in (self.output / "checkpoints").glob("step_????????"):
                self.assertEqual(sheaf("checkpoint", "verify", path).returncode, 0, path)
        steps = max(int(path.name[5:]) for path in (self.output / "checkpoints").glob("step_????????")) + 4
        # A global batch of 8 rows on two ranks.
        out = self.mpirun(2, file, f"run.steps={steps}", "--resume", "gradient_accumulation_steps=4")
        self.assertIn(f"resumed after step {steps - 4}", out)
        found = self.numbers()
        self.train("--nproc", "1", f"run.steps={steps}", **MESH | {"gradient_accumulation_steps": 4, "sequence_parallel_size": 1, "train_batch_size": 8,
                                                                  "train_micro_batch_size_per_gpu": 2})
        for m, e in zip(found, self.numbers(), strict=True):
            # fp32 in another order of sums; the run is longer than those for which 1e-5 holds
            self.assertLess(abs(m[1] - e[1]), 1e-4 * e[1], (m, e))

    def test_a_stopped_process_is_named_by_those_that_wait(self):
        process = self.start(4, self.run_file(**MESH), "run.steps=1000000", "run.timeout_s=3")
        self.wait_for_steps(process, 3)
        victim = self.ranks(process)[2]
        begin = time.monotonic()
        os.kill(victim, signal.SIGSTOP)
        try:
            _, err = self.end(process, within=15)
        finally:
            self.assertNotIn(victim, self.ranks(process), "the stopped process is left behind")
        took = time.monotonic() - begin
        self.assertGreater(took, 2.9, err)
        self.assertLess(took, 10, err)    # 3 s, and what mpirun needs to end a process that does not answer
        self.assertNotEqual(process.returncode, 0)
        self.assertRegex(err, r"rank \d waited 3(\.\d+)? s in '[^']+' for rank 2")
        self.assertIn("run.timeout_s", err)

    def test_ranks_of_different_configurations_are_refused(self):
        a, b = self.run_file(**MESH), self.run_file(**MESH | {"gradient_clipping": 0.25})
        output = f"run.output={self.output}"
        done = subprocess.run([MPIRUN, "-n", "1", SHEAF, "train", a, output, ":", "-n", "1", SHEAF, "train", b, output], env=ENVIRONMENT,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        for part in ("the configuration must be the same on all ranks, but differs on rank 1", "rank 0 has 'gradient_clipping 0.5'",
                     "rank 1 has 'gradient_clipping 0.25'"):
            self.assertIn(part, done.stderr)
        self.assertFalse(self.output.exists())

    def test_what_one_rank_refuses_ends_all_with_exit_code_2(self):
        for bad, says in (("run.stepps=3", "did you mean 'steps'?"), ("tensor_parallel.autotp_size=4", "num_attention_heads"),
                          (f"data.train={self.at}/none.txt", "none.txt")):
            file = self.run_file(**MESH | {"sequence_parallel_size": 1})
            self.assertIn(says, self.mpirun(4, file, bad, code=2))
            self.assertFalse(self.output.exists())

    def test_an_interrupt_finishes_the_step_and_saves(self):
        process = self.start(4, self.run_file(**MESH), "run.steps=1000000", "run.save_every=1000000")
        self.wait_for_steps(process, 3)
        process.send_signal(signal.SIGINT)
        out, err = self.end(process)
        self.assertNotEqual(process.returncode, 0, out + err)
        steps = len(self.metrics())
        checkpoints = list((self.output / "checkpoints").glob("*"))
        self.assertEqual([path.name for path in checkpoints], [f"step_{steps:08}"], out + err)
        self.assertEqual(sheaf("checkpoint", "verify", checkpoints[0]).returncode, 0)


unittest.main()
