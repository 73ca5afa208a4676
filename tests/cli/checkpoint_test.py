"""Checkpoints as a user meets them:  checkpoint_test.py SHEAF [unittest arguments]      --resume, and sheaf checkpoint."""
import json
import os
import pathlib
import shutil
import struct
import sys
import unittest

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent))    # python -I leaves it out
import files
from case import Case, sheaf


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


class Resume(Case):
    RUN = {"scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-3, "warmup_num_steps": 4, "warmup_type": "linear"}}}

    def test_more_steps_keep_and_nothing_to_resume(self):
        done = sheaf("train", self.run_file(**self.RUN), "--resume", "run.save_every=2", "run.keep=2")
        self.assertIn("no checkpoint", done.stdout)
        path = self.output
        self.assertEqual(sorted(p.name for p in (path / "checkpoints").iterdir()), ["step_00000002", "step_00000003"])
        again = sheaf("train", self.run_file(**self.RUN), f"run.output={path}", "run.steps=6", "run.save_every=2", "--resume")
        self.assertIn("resumed after step 3", again.stdout)
        self.output = path
        more = self.numbers()
        self.train("run.steps=6", **self.RUN)
        self.assertEqual(more, self.numbers())

    def test_another_seed_and_a_damaged_checkpoint_are_refused(self):
        self.train("run.save_every=3", **self.RUN)
        path = self.output
        resume = lambda *more: sheaf("train", self.run_file(**self.RUN), f"run.output={path}", "run.steps=6", "--resume", *more)
        self.assertIn("seed", resume("run.seed=9").stderr)
        file = path / "checkpoints/step_00000003/rank_00000.safetensors"
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)
        done = resume()
        self.assertEqual(done.returncode, 2)
        self.assertIn("damaged", done.stderr)
        self.assertIn(str(file), done.stderr)

    def test_another_model_is_refused_by_its_first_difference(self):
        self.train("run.save_every=3", **self.RUN)
        path = self.output
        for name, config, says in (("wider", {"vocab_size": 257}, "vocab_size 256, this run's has 257"),
                                   ("turned", {"rope_theta": 5000.0}, "rope_theta (none), this run's has 5000.0")):
            shapes = files.SHAPES
            if name == "wider":
                files.SHAPES = shapes | {"model.embed_tokens.weight": [257, 8], "lm_head.weight": [257, 8]}
            try:
                other = files.write_model(self.at / name, config=config, tensors=files.random_weights())
            finally:
                files.SHAPES = shapes
            done = sheaf("train", self.run_file(model=str(other)), f"run.output={path}", "run.steps=6", "--resume")
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("a checkpoint of another model", done.stderr)
            self.assertIn(says, done.stderr)


class Commands(Case):
    def setUp(self):
        """One run for all; each test has its own copy."""
        self.names = {"tokenizer.json": '{"a": 1}', "generation_config.json": "{}", "chat_template.jinja": "{{ messages }}"}
        if not hasattr(Commands, "original"):
            for name, text in self.names.items():
                (self.model / name).write_text(text)
            self.train("run.save_every=2", "run.steps=4")
            Commands.original = self.output
        self.output = self.at / f"copy-{self.id()}"
        shutil.copytree(Commands.original, self.output)
        self.newest = self.output / "checkpoints/step_00000004"
        self.rank = self.newest / "rank_00000.safetensors"

    def failed(self, *command, says=()):
        done = sheaf("checkpoint", *command)
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertTrue(done.stderr.startswith("sheaf: ") and len(done.stderr.splitlines()) <= 8, done.stderr)
        for part in says:
            self.assertIn(part, done.stderr)

    def exported(self, *command):
        done = sheaf("checkpoint", "export", *command)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_show_tells_what_is_there_of_a_run_a_folder_and_a_step(self):
        elements = sum(map(files.elements, files.SHAPES.values()))
        for path, step in ((self.output, 4), (self.output / "checkpoints", 4), (self.newest, 4), (self.output / "checkpoints/step_00000002", 2)):
            shown = json.loads(sheaf("checkpoint", "show", path, "--json", "--tensors").stdout)
            self.assertEqual((shown["step"], shown["committed"], shown["identity"]["seed"]), (step, step, 1))
            self.assertRegex(shown["written"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
            kind = {"tensors": len(files.SHAPES), "elements": elements, "bytes": 4 * elements}
            self.assertEqual(shown["files"], 1)
            self.assertEqual(shown["kinds"], {"adam_m": kind, "adam_v": kind, "parameter": kind})
            self.assertEqual({t["name"] for t in shown["tensors"]}, set(files.SHAPES))
            self.assertEqual(shown["config"], files.CONFIG)
        text = sheaf("checkpoint", "show", self.output, "--tensors").stdout
        for part in ("step 4 (4 committed)", "seed 1", "parameter", "model.layers.0.self_attn.q_proj.weight", "llama, exported in fp32"):
            self.assertIn(part, text)

    def test_export_equals_the_model_that_the_run_wrote_wherever_the_run_was_moved(self):
        moved = self.at / "moved"
        self.output.rename(moved)
        shutil.move(self.model, self.at / "hidden")    # nothing of the original is needed
        try:
            self.assertIn(str(moved / "model_step_00000004"), self.exported(moved))
            for path in (moved / "model").iterdir():
                self.assertEqual((moved / "model_step_00000004" / path.name).read_bytes(), path.read_bytes(), path.name)
            self.assertEqual(sorted(p.name for p in (moved / "model_step_00000004").iterdir()),
                             sorted([*self.names, "config.json", "model.safetensors"]))
        finally:
            shutil.move(self.at / "hidden", self.model)
        # An earlier step is that of a run that ended there.
        self.exported(moved / "checkpoints/step_00000002", "--output", self.at / "earlier")
        self.train("run.steps=2")
        self.assertEqual((self.at / "earlier/model.safetensors").read_bytes(), (self.output / "model/model.safetensors").read_bytes())

    def test_export_in_another_dtype_rounds(self):
        self.exported(self.output, "--dtype", "bf16", "--output", self.at / "bf16")
        whole = files.read_safetensors(self.output / "model/model.safetensors")
        for name, data in files.read_safetensors(self.at / "bf16/model.safetensors").items():
            wide = struct.unpack(f"<{len(whole[name]) // 4}I", whole[name])
            # to nearest, ties to even: what is cut off is the lower half of the fp32 number
            self.assertEqual(struct.unpack(f"<{len(wide)}H", data), tuple((x + 0x7fff + (x >> 16 & 1)) >> 16 for x in wide), name)
        self.assertEqual(json.loads((self.at / "bf16/config.json").read_text())["dtype"], "bfloat16")
        self.failed("export", self.output, "--dtype", "fp8", says=["fp8", "bf16"])
        self.failed("export", self.output, "--experts", "fused", says=["a llama model has no experts"])

    def test_verify_names_file_and_chunk_of_all_damage(self):
        done = sheaf("checkpoint", "verify", self.output)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"all \d+ chunks in 1 file are as they were written: [\d.]+ KiB in \d+s, \d+ MB/s")
        length = struct.unpack("<Q", self.rank.read_bytes()[:8])[0]
        header = json.loads(self.rank.read_bytes()[8:8 + length])
        names = [f"{kind}/model.norm.weight#0" for kind in ("parameter", "adam_v")]
        for name in names:
            flip(self.rank, 8 + length + header[name]["data_offsets"][0])
        flip(self.newest / "tokenizer.json", 2)
        self.failed("verify", self.output, says=[str(self.rank), *names, "tokenizer.json: is damaged"])
        self.failed("export", self.output, says=[str(self.rank), names[0]])
        self.assertFalse(list(self.output.glob("model_step*")))    # nothing half-written
        # The other checkpoint is sound.
        self.assertEqual(sheaf("checkpoint", "verify", self.output / "checkpoints/step_00000002").returncode, 0)

    def test_what_is_no_checkpoint_says_so(self):
        self.failed("show", self.at / "none", says=["no such folder"])
        self.failed("show", self.model, says=[str(self.model), "no complete checkpoint"])
        (self.at / "empty/checkpoints/step_00000002.tmp-7").mkdir(parents=True)
        self.failed("verify", self.at / "empty", says=["no complete checkpoint"])
        whole, index = self.rank.read_bytes(), (self.newest / "index.json").read_text()
        for raw in (b"", whole[:300], whole[:-4]):    # tests/checkpoint and tests/fuzz have the others
            self.rank.write_bytes(raw)
            self.failed("verify", self.output, says=[str(self.rank)])
        self.rank.unlink()
        self.failed("verify", self.output, says=[str(self.rank)])
        self.rank.write_bytes(whole)
        for text in ("{}", index[:-9], index.replace("parameter/model.norm.weight#0", "x"), index.replace("rank_00000.safetensors", "../rank")):
            (self.newest / "index.json").write_text(text)
            self.failed("show", self.output, says=["index.json"])
        without = json.loads(index)
        del without["meta"]["model"]
        (self.newest / "index.json").write_text(json.dumps(without))
        self.failed("export", self.output, says=["does not say which model"])

    def test_export_leaves_a_folder_alone_that_is_not_its_own(self):
        mine = self.at / "mine"
        mine.mkdir()
        (mine / "thesis.txt").write_text("mine")
        self.failed("export", self.output, "--output", mine, says=[str(mine), "left alone"])
        self.assertEqual([p.name for p in mine.iterdir()], ["thesis.txt"])


unittest.main()
