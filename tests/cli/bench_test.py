"""`sheaf bench`: what it writes, its exit codes, an interrupt. Tiny: one family, few updates; the whole is the command itself."""
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent))    # python -I leaves it out
from case import SHEAF, Case, sheaf

MESHES = ["ep", "ep_tp", "ep_sp", "ep_zero3", "full"]
CORES = len(os.sched_getaffinity(0))
CONFIG = {"model_type": "qwen3_moe", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
          "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}


class Bench(Case):
    def folder(self):
        return self.at / self.id()

    def bench(self, *arguments, code=0):
        done = sheaf("bench", *arguments, "--device", "cpu", "--output", self.folder())
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def results(self):
        return json.loads((self.folder() / "results.json").read_text())

    def check_page(self, *has):
        """Nothing outside the page is needed, and tags are closed as they were opened."""
        page = (self.folder() / "index.html").read_text()
        for outside in ("http:", "https:", "//", "src=", "<script", "<link", "@import", "url("):
            self.assertNotIn(outside, page)
        open_tags = []
        for closes, tag, empty in re.findall(r"<(/?)([a-z0-9]+)[^>]*?(/?)>", page):
            if closes:
                self.assertEqual(open_tags.pop(), tag)
            elif not empty and tag not in ("meta", "input"):
                open_tags.append(tag)
        self.assertEqual(open_tags, [])
        for text in has:
            self.assertIn(text, page)
        self.assertNotIn("nan", re.sub(r"<text.*?</text>", "", page.split("<svg", 1)[1]).split("config.json")[0])

    def no_temporaries(self):
        self.assertEqual([p.name for p in self.folder().iterdir() if p.name.startswith(".") or ".tmp" in p.name], [])


class Convergence(Bench):
    def corpus_of(self, size):
        self.corpus.write_bytes(bytes(32 + (i * i * 7 + i // 11) % 90 for i in range(size)))
        return self.corpus

    def test_meshes_train_as_one_rank(self):
        said = self.bench("convergence", "--families", "qwen3_moe", "--steps", 22, "--seq-len", 16, "--data", self.corpus_of(6000))
        self.assertIn("5 of 5 runs on meshes within 1e-05 of one rank in the first 20 updates", said)
        found = self.results()
        self.assertEqual((found["passed"], found["interrupted"], found["compared"], found["within_tolerance"]), (True, False, 5, 5))
        family, = found["families"]
        self.assertEqual(family["family"], "qwen3_moe")
        one, other, *meshes = family["runs"]
        self.assertEqual([run["id"] for run in family["runs"]], ["one_rank", "other_order", *MESHES])
        for run in family["runs"]:
            self.assertEqual((run["end"], len(run["loss"]), len(run["grad_norm"])), ("finished", 22, 22))
            self.assertEqual(run["passed"], None if run["ranks"] == 1 else True)
            # The differences are those of the curves, and the curves those that the run wrote.
            worst = max(abs(a - b) / abs(b) for a, b in zip(run["loss"][:20], one["loss"]))
            self.assertTrue(math.isclose(run["first_updates"]["loss_difference"], worst, rel_tol=1e-9, abs_tol=1e-15))
            lines = (self.folder() / "runs/qwen3_moe" / run["id"] / "metrics.jsonl").read_text().splitlines()
            self.assertEqual([json.loads(line)["loss"] for line in lines], run["loss"])
            loads = [json.loads(line)["load"] for line in lines]
            self.assertEqual(run["load"]["max_over_mean"], [max(layer["max_over_mean"] for layer in load) for load in loads])
        self.assertGreater(max(other["loss_difference"] + other["grad_norm_difference"]), 0)    # it is another order
        self.assertEqual(meshes[-1]["mesh"], {"dp": 2, "sp": 2, "tp": 2, "edp": 2, "ep": 2, "etp": 2, "zero_stage": 3})
        self.check_page("qwen3_moe", "full folding", "other order", "tokens of the busiest expert")
        self.assertIn("| full folding | 8 |", (self.folder() / "table.md").read_text())
        self.assertFalse(any(self.folder().rglob("*.safetensors")))
        self.no_temporaries()
        self.refused(sheaf("bench", "convergence", "--data", self.corpus, "--output", self.folder()), "already holds a benchmark")

    def test_an_interrupt_keeps_what_is_done(self):
        command = [SHEAF, "bench", "convergence", "--families", "qwen3_moe", "--steps", "5000", "--seq-len", "16", "--data", str(self.corpus_of(6000)),
                   "--device", "cpu", "--output", str(self.folder())]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        metrics = self.folder() / "runs/qwen3_moe/one_rank/metrics.jsonl"
        until = time.monotonic() + 60
        while not (metrics.exists() and metrics.stat().st_size > 2000):
            self.assertLess(time.monotonic(), until)
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
        self.assertEqual(run.returncode, 130, out + err)
        found = self.results()
        self.assertTrue(found["interrupted"])
        done, = found["families"][0]["runs"]
        self.assertEqual(done["end"], "interrupted")
        self.assertEqual(len(done["loss"]), len(metrics.read_text().splitlines()))
        self.assertIn("interrupted after update", out)
        self.check_page("interrupted")
        self.no_temporaries()

    def test_bad_input(self):
        out = ("--output", self.folder())
        self.refused(sheaf("bench", "convergence", "--families", "qwen3_mo", *out), "no family 'qwen3_mo'", "did you mean 'qwen3_moe'?", "deepseek_v3")
        self.refused(sheaf("bench", "convergence", "--data", self.at / "absent.txt", *out), "absent.txt")
        self.refused(sheaf("bench", "convergence", *out, cwd=self.at), "out/corpus.txt", "make corpus", "--data FILE")
        self.refused(sheaf("bench", "convergence", "--data", self.corpus_of(100), *out), "corpus shorter than one batch")
        self.refused(sheaf("bench", "convergence", "--steps", 0, *out), "--steps")
        self.refused(sheaf("bench"), "subcommand")
        self.refused(sheaf("bench", "convergence", *out, env=os.environ | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2",
                                                                          "OMPI_COMM_WORLD_LOCAL_RANK": "0"}), "starts its ranks itself")
        self.assertFalse(self.folder().exists())


class Moe(Bench):
    def setUp(self):
        self.config = self.at / "config.json"
        self.config.write_text(json.dumps(CONFIG))

    def test_measured_and_predicted(self):
        self.bench("moe", "--model-sizes", self.config, "--ranks", "1,2,8192", "--meshes", "ep,sp2+tp2+zero3", "--steps", 2, "--seq-len", 16,
                   "--link", 1)
        found = self.results()
        self.assertEqual((found["device"].split(",")[0], found["link_bytes_per_s"], found["threads_per_rank"]), ("cpu", 1e9, max(1, CORES // min(2, CORES))))
        size, = found["sizes"]
        rows = {(row["ranks"], row["mesh"]): row for row in size["rows"]}
        self.assertEqual(list(rows), [(1, "one rank"), (2, "ep"), (2, "sp2+tp2+zero3"), (8192, "ep"), (8192, "sp2+tp2+zero3")])
        one, two, large = rows[1, "one rank"], rows[2, "ep"], rows[8192, "ep"]
        self.assertEqual(one["kind"], "measured")
        self.assertEqual((len(one["steps_ms"]), one["efficiency"], one["tokens_per_step"]), (2, 1, 16))
        self.assertAlmostEqual(one["tokens_per_s"], 16 / one["step_ms"] * 1e3)
        self.assertEqual(one["peak_bytes"], one["planned_bytes"])    # no rows move: the plan is all there is
        self.assertEqual(two["kind"], "measured" if CORES >= 2 else "predicted")
        self.assertEqual(two["degrees"], {"dp": 2, "sp": 1, "tp": 1, "edp": 1, "ep": 2, "etp": 1, "zero_stage": 0})
        self.assertAlmostEqual(two["efficiency"], two["tokens_per_s_per_rank"] / one["tokens_per_s_per_rank"])
        self.assertEqual((rows[2, "sp2+tp2+zero3"]["kind"], rows[2, "sp2+tp2+zero3"]["note"]),
                         ("impossible", "sp2+tp2+zero3: tp 2 · sp 2 does not divide 2 ranks"))
        self.assertEqual((large["kind"], large["peak_bytes"]), ("predicted", None))
        self.assertEqual(large["degrees"]["ep"], 4)    # as many as there are experts
        self.assertGreater(large["planned_bytes"], 0)
        self.assertNotIn("steps_ms", large)
        base = two if CORES >= 2 else one
        self.assertAlmostEqual(large["step_ms"], base["step_ms"] + (large["sent_bytes"] - base["sent_bytes"]) / 1e9 * 1e3)
        self.check_page("predicted", "class=\"hollow\"", "efficiency")
        self.assertIn("| predicted: ", (self.folder() / "table.md").read_text())
        self.no_temporaries()

    def test_without_a_link_no_time_is_predicted(self):
        self.bench("moe", "--model-sizes", self.config, "--ranks", "1,8192", "--meshes", "zero3", "--steps", 1, "--seq-len", 16)
        row = self.results()["sizes"][0]["rows"][1]
        self.assertEqual((row["kind"], row["step_ms"], row["efficiency"]), ("predicted", None, None))

    def test_bad_input(self):
        def refused(*says, **options):
            given = {"model-sizes": self.config, "ranks": "1", "output": self.folder()} | options
            self.refused(sheaf("bench", "moe", *(text for key, value in given.items() for text in (f"--{key}", value))), *says)

        refused("no size 'smal'", "did you mean 'small'?", **{"model-sizes": "smal"})
        refused("has no experts", **{"model-sizes": self.model / "config.json"})
        refused("mesh 'ep2+qp'", "'qp' is no such word", "ep4+tp2+zero3", meshes="ep2+qp")
        refused("'zero4' is no stage", meshes="zero4")
        refused("degree of 0", meshes="tp0")
        refused("--ranks", ranks="0")
        self.assertFalse(self.folder().exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
