"""The built program as a subprocess:  cli_test.py SHEAF [unittest arguments]      what it refuses and how, what it promises on the way."""
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
import files
from case import SHEAF, Case, sheaf


class BadConfiguration(Case):
    def test_broken_json_names_file_line_and_column(self):
        path = self.run_file()
        path.write_text('{"model": "m",\n "data": {,}}')
        self.refused(sheaf("train", path), f"{path}:2:11", "not JSON")

    def test_wrong_types_name_key_value_and_what_was_wanted(self):
        self.train_refused("run.steps", "1.5 (a number)", "an integer >= 1", overrides=["run.steps=1.5"])
        self.train_refused("data.seq_len", "true", "an integer", overrides=["data.seq_len=true"])
        self.train_refused("gradient_clipping", '"1" (a string)', "a number >= 0", gradient_clipping="1")

    def test_an_unknown_key_names_the_nearest(self):
        self.train_refused("unknown key", "gradient_cliping", "did you mean 'gradient_clipping'?", gradient_cliping=1)
        self.train_refused("run.stepps", "did you mean 'steps'?", overrides=["run.stepps=3"])

    def test_a_missing_key_is_named(self):
        self.train_refused("data.train is missing", data={"seq_len": 8})

    def test_missing_files_are_named(self):
        self.refused(sheaf("train", self.at / "none.json"), str(self.at / "none.json"), "no such file")
        self.train_refused(str(self.at / "none.txt"), "No such file", overrides=[f"data.train={self.at / 'none.txt'}"])
        self.train_refused(str(self.at / "none"), "no such folder", model=str(self.at / "none"))
        self.train_refused("no config.json", model=str(self.at))
        (self.at / "empty").mkdir()
        (self.at / "empty/config.json").write_text(json.dumps(files.CONFIG))
        self.train_refused(str(self.at / "empty"), "safetensors", model=str(self.at / "empty"))

    def test_no_run_file_and_two_run_files(self):
        self.refused(sheaf("train"), "one run file")
        self.refused(sheaf("train", "a.json", "b.json"), "one run file", "a.json, b.json")
        self.refused(sheaf("train", "a.json", "--data", "b"), "--deepspeed")
        self.refused(sheaf("train", "--deepspeed", "a.json"), "--model")

    def test_what_later_work_brings_is_refused_by_name(self):
        path = self.run_file()
        self.refused(sheaf("train", path, "data.tokenizer=gpt"), "data.tokenizer", "'gpt'", '"bytes"')
        self.refused(sheaf("train", path, "fp16.enabled=true"), "fp16.enabled", "not built yet")
        self.train_refused("is text", "no tokenizer.json", '"bytes"', overrides=["data.tokenizer=null"])
        for command in ("generate", "rl"):
            self.refused(sheaf(command, "x", "--y", "z"), f"sheaf {command} is not built yet")

    def test_cuda_asked_for_and_absent(self):
        hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        self.refused(sheaf("train", self.run_file(), "--device", "cuda", env=hidden), "cuda")
        self.refused(sheaf("train", self.run_file(), "run.device=cuda", env=hidden), "cuda")
        self.refused(sheaf("train", self.run_file(), "--device", "tpu"), "tpu", "cpu")


class BadModel(Case):
    def refuse_model(self, *says, name, **changes):
        folder = files.write_model(self.at / name, **changes)
        self.train_refused(*says, model=str(folder))
        return folder

    def test_an_unsupported_model_type_lists_the_supported(self):
        self.refuse_model("model_type", "gpt2", "llama", "mistral", "qwen2", "qwen3", name="gpt2", config={"model_type": "gpt2"})
        self.refuse_model("model_type", "qwen33", "did you mean 'qwen3'?", name="qwen33", config={"model_type": "qwen33"})

    def test_an_unsupported_feature_is_named(self):
        self.refuse_model("hidden_act", "swish2", name="act", config={"hidden_act": "swish2"})
        self.refuse_model("attention_dropout", name="dropout", config={"attention_dropout": 0.1})

    def test_truncated_and_lying_headers_are_named(self):
        whole = (self.model / "model.safetensors").read_bytes()
        for name, raw in (("nothing", b""), ("short", whole[:5]), ("header", whole[:100]), ("data", whole[:-4]),
                          ("huge", b"\xff" * 8 + whole[8:]), ("noise", whole[:8] + bytes(len(whole) - 8)), ("longer", whole + b"1234")):
            folder = files.write_model(self.at / name)
            (folder / "model.safetensors").write_bytes(raw)
            self.train_refused("model.safetensors", model=str(folder))

        def offsets(header):
            header["lm_head.weight"]["data_offsets"] = [0, 10**15]

        def overlap(header):
            header["lm_head.weight"]["data_offsets"] = header["model.embed_tokens.weight"]["data_offsets"]

        def dtype(header):
            header["lm_head.weight"]["dtype"] = "F99"

        def shape(header):
            header["lm_head.weight"]["shape"] = [256, -8]

        for name, lie in (("offsets", offsets), ("overlap", overlap), ("dtype", dtype), ("shape", shape)):
            self.refuse_model("model.safetensors", "lm_head.weight", name=name, edit=lie)

    def test_missing_extra_and_misshapen_tensors_are_named(self):
        tensors = files.random_weights()
        del tensors["model.norm.weight"]
        self.refuse_model("missing: model.norm.weight [8]", name="missing", tensors=tensors)
        self.refuse_model("wrong shape: lm_head.weight is [256, 8], the model wants [255, 8]", name="misshapen", config={"vocab_size": 255})
        self.refuse_model("not in the model: lm_head.weights", name="extra",
                          edit=lambda header: header.update({"lm_head.weights": header.pop("lm_head.weight")}))
        # Integers are no weights.
        self.refuse_model("lm_head.weight", "wanted bf16, fp16 or fp32", name="integers",
                          edit=lambda header: header["lm_head.weight"].update(dtype="I32"))


class BadData(Case):
    def test_a_corpus_shorter_than_a_row_or_a_batch(self):
        short = self.at / "short.txt"
        short.write_bytes(b"12345678"[:7])    # and the end-of-text token: 8 tokens, where a row of 8 takes 9
        self.train_refused(str(short), "8", overrides=[f"data.train={short}"])
        short.write_bytes(files.text(20))     # two rows
        self.train_refused(str(short), "2 rows", "batch", overrides=[f"data.train={short}", "train_micro_batch_size_per_gpu=3"])
        short.write_bytes(b"")
        self.train_refused(str(short), overrides=[f"data.train={short}"])

    def test_token_ids_past_the_vocabulary(self):
        folder = files.write_model(self.at / "vocabulary", config={"vocab_size": 100})
        self.train_refused(str(self.corpus), "vocabulary has 100 ids", model=str(folder))
        tokens = files.write_tokens(self.at / "tokens.bin", [*range(50), 256, *range(50)])
        self.train_refused("token 50 is 256", "vocabulary has 256 ids", overrides=[f"data.train={tokens}"])
        tokens = files.write_tokens(self.at / "negative.bin", [*range(50), -1])
        self.train_refused("token 50 is -1", overrides=[f"data.train={tokens}"])

    def test_a_corpus_of_an_unknown_kind_and_a_broken_index(self):
        self.train_refused("corpus.parquet", "wanted .txt", overrides=[f"data.train={self.at}/corpus.parquet"])
        tokens = files.write_tokens(self.at / "broken.bin", range(50))
        tokens.with_suffix(".idx").write_bytes(b"MMIDIDX")
        self.train_refused("broken.idx", "truncated", overrides=[f"data.train={tokens}"])
        tokens.with_suffix(".idx").unlink()
        self.train_refused("broken.idx", "missing", overrides=[f"data.train={tokens}"])


class BadMesh(Case):
    """2 query heads, 1 kv head, rows of 8 tokens."""

    def test_degrees_that_do_not_multiply_to_the_ranks(self):
        self.train_refused("tp 3 · sp 1 does not divide the 4 ranks", "1, 2 or 4", overrides=["--nproc", "4", "tensor_parallel.autotp_size=3"])
        self.train_refused("tp 2 · sp 2 does not divide the 2 ranks", "1 or 2",
                           overrides=["run.nproc=2", "tensor_parallel.autotp_size=2", "sequence_parallel_size=2"])
        self.train_refused("tp 2 · sp 1 does not divide the 1 rank;", overrides=["tensor_parallel.autotp_size=2"])
        self.train_refused("does not divide", overrides=["--nproc", "2", f"tensor_parallel.autotp_size={2**32}", f"sequence_parallel_size={2**32}"])
        self.train_refused("data_parallel_size", "found 4", "2 ranks", "leave it out", overrides=["--nproc", "2", "data_parallel_size=4"])
        self.train_refused("tp_size: found 4", "autotp_size is 2", overrides=["--nproc", "2", "tensor_parallel.autotp_size=2"],
                           tensor_parallel={"tp": {"tp_size": 4}})

    def test_a_number_of_ranks_that_is_none(self):
        for number in ("0", "-1", "x", "100000"):
            self.train_refused("--nproc", number, "1 to 1024", overrides=["--nproc", number])
            self.train_refused("run.nproc", number, overrides=[f"run.nproc={number}"])

    def test_more_ranks_than_there_is_to_cut(self):
        self.train_refused("autotp_size 4 over 2 attention heads", "at most 2", overrides=["--nproc", "4", "tensor_parallel.autotp_size=4"])
        self.train_refused("sequence_parallel_size 16 over 8 tokens", "at most 8", overrides=["--nproc", "16", "sequence_parallel_size=16"])
        tokens = files.write_tokens(self.at / "zeros.bin", [0] * 100)
        for key, says in (("vocab_size", "tokens of the vocabulary"), ("intermediate_size", "rows of the MLP")):
            model = files.write_model(self.at / key, config={key: 1})
            self.train_refused("autotp_size 2 over 1", says, "at most 1", model=str(model),
                               overrides=["--nproc", "2", "tensor_parallel.autotp_size=2", f"data.train={tokens}"])

    def test_a_batch_that_does_not_fit(self):
        self.train_refused("train_batch_size: found 3", "× 2 ranks", "train_batch_size 4 fits", overrides=["--nproc", "2", "train_batch_size=3"])
        self.train_refused("train_batch_size: found 6", "4 ranks / (tp 1 · sp 2)", "train_batch_size 8 fits",
                           overrides=["--nproc", "4", "sequence_parallel_size=2", "train_batch_size=6"])
        self.train_refused("found 5", "8 ranks / (tp 2 · sp 1)", "train_batch_size 8 fits", train_micro_batch_size_per_gpu=None,
                           overrides=["--nproc", "8", "tensor_parallel.autotp_size=2", "train_batch_size=5"])
        self.train_refused("found 5", "= 16", "train_batch_size 16 fits", gradient_accumulation_steps=2,
                           overrides=["--nproc", "4", "train_batch_size=5"])
        # 125 rows: not one step
        self.train_refused("125 rows", "128", overrides=["--nproc", "4"], train_micro_batch_size_per_gpu=32)

    def test_storage_over_ranks_that_do_not_divide(self):
        for key in ("mics_shard_size", "zero_hpz_partition_size"):
            self.train_refused(key, "found 3", "4 ranks", "divisor", overrides=["--nproc", "4", "zero_optimization.stage=3", f"zero_optimization.{key}=3"])
        self.train_refused("mics_shard_size: found 4", "2 ranks", overrides=[
            "--nproc", "4", "tensor_parallel.autotp_size=2", "zero_optimization.stage=3", "zero_optimization.mics_shard_size=4"])
        self.train_refused("mics_shard_size", "stage 1, 2 or 3", overrides=["--nproc", "4", "zero_optimization.mics_shard_size=2"])
        self.train_refused("zero_hpz_partition_size", "stage 3",
                           overrides=["--nproc", "4", "zero_optimization.stage=2", "zero_optimization.zero_hpz_partition_size=2"])
        self.train_refused("zero_optimization.stage", "found 4", overrides=["--nproc", "4", "zero_optimization.stage=4"])

    def test_a_tensor_parallel_plan_that_fits_nothing(self):
        for name, plan, says in (("pattern", {"layers.*.self_attn.q_prj": "colwise"}, ("matches no parameter", "self_attn.q_proj")),
                                 ("style", {"layers.*.self_attn.q_proj": "columnwise"}, ("unknown style 'columnwise'", "'colwise'")),
                                 ("number", {"layers.*.self_attn.q_proj": 7}, ("base_model_tp_plan",))):
            model = files.write_model(self.at / name, config={"base_model_tp_plan": plan})
            self.train_refused(*says, model=str(model), overrides=["--nproc", "2", "tensor_parallel.autotp_size=2"])

    def test_a_checkpoint_of_another_model_or_batch(self):
        self.train("--nproc", "2", "run.save_every=1")
        first, other = self.output, files.write_model(self.at / "other", config={"rope_theta": 5e5})
        batch = ["--nproc", "4", "--resume", f"run.output={first}"]
        self.train_refused(f"{first}/checkpoints/step_00000003", "another model", "rope_theta", "500000", model=str(other),
                           train_micro_batch_size_per_gpu=1, overrides=batch)
        self.train_refused(f"{first}/checkpoints/step_00000003", "train_batch_size 4", "8", overrides=batch)

    def test_launchers(self):
        mpirun = os.environ | {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
        self.refused(sheaf("train", self.run_file(), "--nproc", "2", env=mpirun), "--nproc 2", "started 4 ranks", "leave --nproc out")
        self.refused(sheaf("train", self.run_file(), env=os.environ | {"OMPI_COMM_WORLD_SIZE": "4"}), "OMPI_COMM_WORLD_RANK", "not set")
        torchrun = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
        self.refused(sheaf("train", self.run_file(), "--device", "cpu", env=os.environ | torchrun), "torchrun", "mpirun", "--nproc 2")
        # The program alone, without its plugin.
        alone = self.at / "alone"
        alone.mkdir()
        shutil.copy(SHEAF, alone)
        done = subprocess.run([alone / "sheaf", "train", self.run_file()], env=mpirun, capture_output=True, text=True, timeout=60)
        self.refused(done, "sheaf_mpi.so", "without MPI", "install MPI")
        done = subprocess.run([alone / "sheaf", "train", self.run_file(), "--nproc", "2"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)


class Output(Case):
    def test_an_output_folder_that_cannot_be_written(self):
        blocker = self.at / "a-file"
        blocker.write_text("mine")
        for output in (blocker, blocker / "out", "/proc/none/out"):    # a test may run as root, whom permissions do not stop
            self.refused(sheaf("train", self.run_file(), f"run.output={output}"), str(output))
        self.assertEqual(blocker.read_text(), "mine")

    def test_an_output_folder_that_holds_a_run_is_left_alone(self):
        self.train()
        before = {path: path.read_bytes() for path in self.output.rglob("*") if path.is_file()}
        again = self.output
        self.refused(sheaf("train", self.run_file(), f"run.output={again}"), str(again), "already holds a run")
        self.assertEqual(before, {path: path.read_bytes() for path in again.rglob("*") if path.is_file()})

    def test_what_a_run_writes(self):
        done = self.train("run.steps=4", gradient_accumulation_steps=2)
        self.assertEqual(sorted(path.name for path in self.output.iterdir()), ["metrics.jsonl", "model", "run.json", "tensorboard"])
        self.assertEqual(sorted(path.name for path in (self.output / "model").iterdir()), ["config.json", "model.safetensors"])
        run = json.loads((self.output / "run.json").read_text())
        self.assertEqual((run["run"]["steps"], run["train_batch_size"], run["gradient_clipping"]), (4, 4, 1.0))
        self.assertEqual([m["step"] for m in self.metrics()], [1, 2, 3, 4])
        self.assertEqual([m["tokens"] for m in self.metrics()], [32] * 4)
        # step, loss, gradient norm, lr, ms, tokens/s, share of the peak, ETA
        self.assertRegex(done.stdout,
                         r"step 4/4  loss \d\.\d+  norm \d+\.\d+  lr 1\.00e-03  \d+ ms  [\d.]+k? tokens/s  \d+ % of peak  eta 0s")

    def test_a_first_interrupt_finishes_the_step_saves_and_exits_130(self):
        for ranks in (1, 4):
            with self.subTest(ranks=ranks):
                self.interrupt(f"run.nproc={ranks}", "zero_optimization.stage=1")

    def interrupt(self, *overrides):
        process = subprocess.Popen([SHEAF, "train", str(self.run_file()), "run.steps=1000000", *overrides], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        log = self.output / "metrics.jsonl"
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_bytes().count(b"\n") >= 3) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, out + err)
        self.assertIn("interrupted: the step is finished, saving the model", out)
        metrics, model = self.metrics(), (self.output / "model/model.safetensors").read_bytes()
        self.assertEqual([m["step"] for m in metrics], list(range(1, len(metrics) + 1)))
        self.assertTrue(3 <= len(metrics) < 1000000)
        # The model is that of the last step in the log: a run of as many steps gives the same bytes.
        self.train(f"run.steps={len(metrics)}", "run.log_every=1000000", *overrides)
        self.assertEqual((self.output / "model/model.safetensors").read_bytes(), model)

    def test_resume_without_a_checkpoint_starts_afresh_and_says_so(self):
        self.assertIn("starting afresh", self.train("--resume").stdout)
        self.assertEqual([m["step"] for m in self.metrics()], [1, 2, 3])

    def test_deepspeed_configuration_trains(self):
        output = self.at / "deepspeed"
        done = sheaf("train", "--deepspeed", "tests/engine/ds_config.json", "--model", self.model, "--data", self.corpus,
                     "data.seq_len=8", "run.steps=3", "data.tokenizer=bytes", f"run.output={output}")
        self.assertEqual(done.returncode, 0, done.stderr)
        run = json.loads((output / "run.json").read_text())
        self.assertEqual((run["model"], run["train_batch_size"], run["optimizer"]["params"]["weight_decay"]), (str(self.model), 8, 0.1))
        self.assertEqual(len((output / "metrics.jsonl").read_text().splitlines()), 3)
        self.assertIn("no meaning here: ", done.stdout)
        self.refused(sheaf("train", "--deepspeed", "tests/engine/ds_config.json", "--model", self.model, "--data", self.corpus), "data.seq_len")


class NotFinite(Case):
    SCHEDULE = {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-3, "warmup_num_steps": 4, "warmup_type": "linear"}}

    def test_a_step_is_counted_reported_and_consumes_its_rows(self):
        """The embedding of one token is infinite. It occurs in the rows of step 3 only: the run goes on as if those rows were not there."""
        tensors = files.random_weights()
        tensors["model.embed_tokens.weight"][255 * 8] = float("inf")
        model = str(files.write_model(self.at / "infinite", tensors=tensors))
        good = files.text(16 * 5 + 1)    # a step is 2 rows of 8
        poisoned = good[32:40] + b"\xff" * 8    # begins with the byte that step 2 predicts last
        corpus = self.at / "poisoned.txt"
        corpus.write_bytes(good[:32] + poisoned + good[32:])
        done = self.train("run.steps=6", f"data.train={corpus}", model=model, scheduler=self.SCHEDULE)
        metrics, written = self.metrics(), files.read_safetensors(self.output / "model/model.safetensors")
        self.assertIsNone(metrics[2]["loss"])
        self.assertIs(metrics[2]["committed"], False)
        self.assertTrue(all("committed" not in m and m["loss"] > 0 for m in metrics[:2] + metrics[3:]))
        self.assertIn("NOT COMMITTED", done.stdout)
        self.assertIn("1 step was not committed", done.stdout)

        corpus.write_bytes(good)
        self.train("run.steps=5", f"data.train={corpus}", model=model, scheduler=self.SCHEDULE)
        numbers = [(m["loss"], m["grad_norm"], m["lr"], m["tokens"]) for m in metrics]
        self.assertEqual(numbers[:2] + numbers[3:], [(m["loss"], m["grad_norm"], m["lr"], m["tokens"]) for m in self.metrics()])
        self.assertEqual(written, files.read_safetensors(self.output / "model/model.safetensors"))

    def test_a_rate_that_explodes_holds_every_later_step(self):
        done = self.train("optimizer.params.lr=1e38", "run.steps=5")
        metrics = self.metrics()
        self.assertEqual([m.get("committed", True) for m in metrics], [True] + [False] * 4)
        self.assertEqual([m["loss"] is None for m in metrics], [False] + [True] * 4)
        self.assertIn("4 steps were not committed", done.stdout)


class Commands(Case):
    OPTIONS = {"train": ["RUN.json", "key.path=value", "--deepspeed", "--model", "--data", "--device", "--nproc", "--resume",
                         "--profile", "--dump-ir"],
               "ops": ["--markdown"], "passes": ["--markdown"], "opt": ["FILE.ir", "--pass", "--options"], "config": [],
               "plan": ["RUN.json", "key.path=value", "--ranks", "--json", "--all", "--device", "--load"],
               "doctor": [], "checkpoint": ["show", "verify", "export"],
               "bench": ["convergence", "moe"],
               "tokenize": ["--model", "--data", "--output", "--tokenizer", "--field", "--threads", "--force"],
               "eval": ["--model", "--data", "--seq-len", "--device", "--logprobs", "--json", "--dtype", "--packing", "--rows", "--tokenizer",
                        "--field"]}
    LATER = ["generate", "rl"]

    def test_help_names_every_command_and_option(self):
        top = sheaf("--help")
        self.assertEqual(top.returncode, 0)
        listed = re.findall(r"^  ([a-z]+) ", top.stdout.split("Subcommands:")[-1].split("SUBCOMMANDS:")[-1], re.M)
        self.assertEqual(sorted(listed), sorted([*self.OPTIONS, *self.LATER]))
        for command in listed:
            done = sheaf(command, "--help")
            self.assertEqual(done.returncode, 0, command)
            for option in self.OPTIONS.get(command, []):
                self.assertIn(option, done.stdout, command)
            # and the other way round: an option that this test does not know is a gap in it
            found = set(re.findall(r"^  (?:-\w,)?(--[\w-]+)", done.stdout, re.M)) - {"--help"}
            self.assertLessEqual(found, set(self.OPTIONS.get(command, [])), command)

    def test_an_unknown_command_or_option_names_the_nearest(self):
        self.refused(sheaf("trian", "run.json"), "'trian'", "did you mean 'train'?")
        self.refused(sheaf("train", "run.json", "--devise", "cpu"), "--devise", "sheaf train --help")
        self.refused(sheaf(), "--help")

    def test_opt_runs_passes_on_a_file(self):
        goldens = sorted(pathlib.Path("tests/golden").rglob("*.ir"))
        self.assertGreaterEqual(len(goldens), 6)
        for golden in goldens:
            given, expected = golden.read_text().split("----\n")
            options = []
            if given.startswith("options "):
                first, given = given.split("\n", 1)
                options = ["--options", first[len("options "):]]
            path = self.at / "graph.ir"
            path.write_text(given)
            same, passed = sheaf("opt", path), sheaf("opt", path, "--pass", golden.parent.name, *options)
            self.assertEqual((same.returncode, same.stdout), (0, given), f"{golden}: {same.stderr}")
            self.assertEqual((passed.returncode, passed.stdout), (0, expected), f"{golden}: {passed.stderr}")

    def test_opt_refuses_what_is_no_graph(self):
        path = self.at / "bad.ir"
        path.write_text("first\n  %0 = silu %7 : fp32[3]\n")
        self.refused(sheaf("opt", path), str(path), "%7")
        path.write_text("first\n  %0 = siluu @x : fp32[3]\n")
        self.refused(sheaf("opt", path), "siluu", "did you mean 'silu'?")
        self.refused(sheaf("opt", path, "--pass", "optimise"), "did you mean 'optimize'?")
        self.refused(sheaf("opt", self.at / "none.ir"), f"sheaf: {self.at}/none.ir: no such file")

    def test_generated_documents_are_up_to_date(self):
        for command, path in (("ops --markdown", "docs/ops.md"), ("passes --markdown", "docs/passes.md"), ("config", "docs/config.md")):
            done = sheaf(*command.split())
            self.assertEqual(done.returncode, 0)
            self.assertEqual(pathlib.Path(path).read_text(), done.stdout,
                             f"to regenerate: build/cpu/src/sheaf {command} >{path}")

    def test_doctor_says_what_is_there(self):
        done = sheaf("doctor")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"LibTorch +2\.\d+")


unittest.main()
