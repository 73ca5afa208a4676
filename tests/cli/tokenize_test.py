"""`sheaf tokenize` and training on text, as a user meets them:  tokenize_test.py SHEAF [unittest arguments]

Ids and rendered conversations are compared with HuggingFace tokenizers and transformers, files with a reader of Megatron's layout.
"""
import gzip
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import numpy
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import chat_templates
import files

SHEAF = str(pathlib.Path(sys.argv.pop(1)).absolute())
EOS = 2    # config.json says it, and nothing else is asked
WORDS = "the of and to in is that it for was on are as with they be at one have this from or had by hot word but what some we can out".split()


def prose(size, seed=1):
    rng, out, length = random.Random(seed), [], 0
    while length < size:
        out.append(rng.choice(WORDS) + rng.choice(["", "", "", ".", ",", "\n", "  ", " 12", "é", "日本"]))
        length += len(out[-1]) + 1
    return " ".join(out)


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([prose(20000)], trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in chat_templates.SPECIALS])
    return tokenizer


class MegatronFile:
    """PREFIX.bin and .idx by memory maps, as Megatron-Core's reader takes them; its documentation gives the layout."""
    DTYPES = {1: numpy.uint8, 2: numpy.int8, 3: numpy.int16, 4: numpy.int32, 5: numpy.int64, 8: numpy.uint16}

    def __init__(self, prefix):
        idx = numpy.memmap(f"{prefix}.idx", mode="r", dtype=numpy.uint8)
        raw = idx.tobytes()
        assert raw[:9] == b"MMIDIDX\x00\x00" and int.from_bytes(raw[9:17], "little") == 1
        self.dtype = self.DTYPES[raw[17]]
        sequences, entries = int.from_bytes(raw[18:26], "little"), int.from_bytes(raw[26:34], "little")
        self.lengths = numpy.frombuffer(raw, numpy.int32, sequences, 34)
        self.pointers = numpy.frombuffer(raw, numpy.int64, sequences, 34 + self.lengths.nbytes)
        self.document_indices = numpy.frombuffer(raw, numpy.int64, entries, 34 + self.lengths.nbytes + self.pointers.nbytes)
        assert 34 + self.lengths.nbytes + self.pointers.nbytes + self.document_indices.nbytes == len(raw)
        assert self.document_indices[0] == 0 and self.document_indices[-1] == sequences
        self.bin = numpy.memmap(f"{prefix}.bin", mode="r", dtype=self.dtype)

    def __getitem__(self, i):
        begin = self.pointers[i] // numpy.dtype(self.dtype).itemsize
        return self.bin[begin:begin + self.lengths[i]].tolist()

    def __len__(self):
        return len(self.lengths)


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.at = pathlib.Path(tempfile.mkdtemp(prefix="sheaf-tokenize-"))
        cls.tokenizer = make_tokenizer()
        cls.vocab = cls.tokenizer.get_vocab_size()
        cls.model = cls.folder("model")
        cls.count = 0

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.at)

    @classmethod
    def folder(cls, name, template=None, **config):
        folder = cls.at / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(files.CONFIG | {"vocab_size": cls.vocab, "eos_token_id": [EOS, 5]} | config))
        cls.tokenizer.save(str(folder / "tokenizer.json"))
        # Not looked at for the end of text.
        (folder / "generation_config.json").write_text('{"eos_token_id": 7}')
        (folder / "tokenizer_config.json").write_text(json.dumps(
            {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": True} | ({"chat_template": template} if template else {})))
        return folder

    def file(self, name, content):
        path = self.at / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def sheaf(self, *args, code=0, **options):
        done = subprocess.run([SHEAF, *map(str, args)], capture_output=True, text=True, timeout=120, **options)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def tokenize(self, data, *args, model=None, **options):
        type(self).count += 1
        prefix = self.at / f"out-{self.count}"
        done = self.sheaf("tokenize", "--model", model or self.model, "--data", data, "--output", prefix, *args, **options)
        return (MegatronFile(prefix), prefix, done) if done.returncode == 0 else (None, prefix, done)

    def refused(self, data, *says, args=(), model=None):
        _, prefix, done = self.tokenize(data, *args, model=model, code=2)
        self.assertLessEqual(len(done.stderr.splitlines()), 8)
        for part in says:
            self.assertIn(part, done.stderr)
        self.assertEqual(list(self.at.glob(prefix.name + "*")), [])
        return done

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids


class Text(Case):
    def test_documents_of_jsonl_and_the_end_of_text_after_each(self):
        texts = ["Hello world", "", "a </s> inside <|im_end|>", "日本語 🙂\n\n  x", "word " * 300]
        data = self.file("a.jsonl", "".join(json.dumps({"text": t}, ensure_ascii=i % 2 == 0) + "\n" for i, t in enumerate(texts)))
        tokens, _, done = self.tokenize(data)
        self.assertEqual([tokens[i] for i in range(len(tokens))], [self.ids(t) + [EOS] for t in texts])
        self.assertEqual(tokens.document_indices.tolist(), list(range(len(texts) + 1)))
        self.assertEqual(tokens.dtype, numpy.uint16)
        self.assertIn("5 documents", done.stdout)

    def test_a_large_text_is_one_document_whatever_the_threads_and_compression(self):
        text = prose(5_000_000)
        wanted = self.ids(text) + [EOS]
        plain, packed = self.file("b.txt", text), self.file("b.txt.gz", gzip.compress(text.encode(), 1))
        for data, threads in ((plain, 1), (plain, 4), (packed, 3)):
            tokens, _, _ = self.tokenize(data, "--threads", threads)
            self.assertEqual(len(tokens), 1)
            self.assertEqual(tokens[0], wanted, f"{data} {threads}")

    def test_bytes_and_a_wide_vocabulary(self):
        tokens, _, _ = self.tokenize(self.file("c.txt", "ab\xff"), "--tokenizer", "bytes", model=self.folder("wide", vocab_size=65500))
        self.assertEqual(tokens[0], [*"ab\xff".encode(), EOS])
        self.assertEqual(tokens.dtype, numpy.int32)
        tokens, _, _ = self.tokenize(self.file("c.txt", "ab"), "--tokenizer", "bytes", model=self.folder("no-eos", eos_token_id=None))
        self.assertEqual(tokens[0], [97, 98, 0])

    def test_a_named_field(self):
        data = self.file("d.jsonl", '{"text": "no", "content": "yes"}\n')
        self.assertEqual(self.tokenize(data, "--field", "content")[0][0], self.ids("yes") + [EOS])


class Refused(Case):
    def test_bad_input_is_named(self):
        good = self.file("good.txt", "text")
        self.refused(self.file("empty.txt", ""), "empty.txt: empty corpus")
        self.refused(self.file("empty.jsonl", "\n\n"), "empty.jsonl: empty corpus")
        self.refused(self.file("e.jsonl", '{"text": "a"}\n{"text": \n'), "e.jsonl:2:", "not JSON")
        self.refused(self.file("f.jsonl", '{"text": "a"}\n\n{"txt": "a"}\n'), "f.jsonl:3: has no field 'text'", "'txt'")
        self.refused(self.file("f.jsonl", '{"text": "a"}\n'), "has no field 'body'", args=["--field", "body"])
        self.refused(self.at / "none.txt", "none.txt: no such file")
        self.refused(self.file("g.csv", "a"), "g.csv", ".jsonl")
        self.refused(good, "no such folder", model=self.at / "none")
        whole = gzip.compress(prose(10000).encode())
        self.refused(self.file("h.txt.gz", whole[:-100]), f"ends at byte {len(whole) - 100}", "truncated")
        self.refused(self.file("i.txt.gz", whole[:500] + b"\x00" * 50 + whole[550:]), "i.txt.gz: gzip data is damaged at byte")
        self.refused(good, "no eos_token_id", model=self.folder("no-eos", eos_token_id=None))
        self.refused(good, f"has {self.vocab} ids", f"vocabulary has {self.vocab - 1}", model=self.folder("small", vocab_size=self.vocab - 1))
        self.refused(good, "end-of-text token 99999", model=self.folder("far", eos_token_id=99999))
        folder = self.folder("no-tokenizer")
        (folder / "tokenizer.json").unlink()
        self.refused(good, "has no tokenizer.json", '"bytes"', model=folder)
        self.refused(self.file("j.jsonl", '{"messages": [{"role": "user", "content": "x"}]}'), "j.jsonl:1: is a conversation", "no chat template")

    def test_output_that_is_there_or_cannot_be(self):
        data = self.file("a.txt", "text")
        prefix = self.at / "there"
        self.sheaf("tokenize", "--model", self.model, "--data", data, "--output", prefix)
        before = prefix.with_suffix(".bin").read_bytes()
        more = self.file("b.txt", "other text")
        done = self.sheaf("tokenize", "--model", self.model, "--data", more, "--output", prefix, code=2)
        self.assertIn("there.bin: is there already; --force", done.stderr)
        self.assertEqual(prefix.with_suffix(".bin").read_bytes(), before)
        self.sheaf("tokenize", "--model", self.model, "--data", more, "--output", prefix, "--force")
        self.assertEqual(MegatronFile(prefix)[0], self.ids("other text") + [EOS])
        done = self.sheaf("tokenize", "--model", self.model, "--data", data, "--output", "/proc/none/x", code=2)
        self.assertIn("/proc/none", done.stderr)

    def test_a_full_disk_leaves_nothing(self):
        data, prefix = self.file("full.txt", prose(3_000_000)), self.at / "full"
        done = self.sheaf("tokenize", "--model", self.model, "--data", data, "--output", prefix, code=2, restore_signals=False,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
        self.assertIn("full.bin.tmp: cannot be written: File too large", done.stderr)
        self.assertEqual([p.name for p in self.at.glob("full*")], ["full.txt"])


class Interrupted(Case):
    def start(self, prefix):
        if not hasattr(type(self), "data"):
            type(self).data = self.file("long.txt", prose(5_000_000) * 12)
        run = subprocess.Popen([SHEAF, "tokenize", "--model", self.model, "--data", self.data, "--output", prefix, "--threads", "1"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.time() + 60
        while not pathlib.Path(f"{prefix}.bin.tmp").exists() or pathlib.Path(f"{prefix}.bin.tmp").stat().st_size < 1000:
            self.assertLess(time.time(), deadline)
            self.assertIsNone(run.poll())
            time.sleep(0.01)
        return run

    def test_ctrl_c_exits_with_130_and_leaves_nothing(self):
        run = self.start(self.at / "int")
        run.send_signal(signal.SIGINT)
        self.assertIn("interrupted", run.communicate(timeout=30)[1])
        self.assertEqual(run.returncode, 130)
        self.assertEqual(list(self.at.glob("int*")), [])

    def test_a_kill_leaves_no_pair_and_the_next_run_cleans_up(self):
        run = self.start(self.at / "kill")
        busy = self.sheaf("tokenize", "--model", self.model, "--data", self.file("s.txt", "x"), "--output", self.at / "kill", code=2)
        self.assertIn("another process is writing it", busy.stderr)
        run.kill()
        run.communicate(timeout=30)
        self.assertFalse((self.at / "kill.idx").exists())
        self.assertFalse((self.at / "kill.bin").exists())
        self.sheaf("tokenize", "--model", self.model, "--data", self.at / "s.txt", "--output", self.at / "kill")
        self.assertEqual(sorted(p.name for p in self.at.glob("kill*")), ["kill.bin", "kill.idx"])


class Chat(Case):
    def encoded(self, folder, conversations, name):
        data = self.file(f"{name}.jsonl", "".join(json.dumps({"messages": m}) + "\n" for m in conversations))
        tokens, prefix, _ = self.tokenize(data, model=folder)
        bits = numpy.unpackbits(numpy.fromfile(f"{prefix}.mask", dtype=numpy.uint8), bitorder="little")
        self.assertEqual(len(bits), (len(tokens.bin) + 7) // 8 * 8)
        begins = numpy.cumsum([0, *tokens.lengths])
        return [(tokens[i], bits[begins[i]:begins[i + 1]].tolist()) for i in range(len(tokens))]

    def expected(self, hf, messages, turns, before):
        """Ids and mask: by transformers where the template marks turns, else from where the turns' texts lie in its rendering."""
        if turns is None:
            out = hf.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
            return list(out["input_ids"]), list(out["assistant_masks"])
        text = hf.apply_chat_template(messages, tokenize=False)
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        mask, at = [0] * len(encoding.ids), 0
        for turn in turns(messages):
            at = text.index(before + turn, at) + len(before)
            for k, (begin, end) in enumerate(encoding.offsets):
                if begin < at + len(turn) and end > at:
                    mask[k] = 1
            at += len(turn)
        return encoding.ids, mask

    def test_conversations_are_rendered_and_masked_as_transformers_does(self):
        for name, (template, turns, before) in chat_templates.TEMPLATES.items():
            for eos in (EOS, self.tokenizer.token_to_id("</s>")):
                folder = self.folder(f"{name}-{eos}", template, eos_token_id=eos)
                hf = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>")
                hf.chat_template = template
                conversations = [[{"role": r, "content": c} for r, c in chat] for chat in chat_templates.CONVERSATIONS]
                for messages, (ids, mask) in zip(conversations, self.encoded(folder, conversations, f"{name}-{eos}")):
                    wanted_ids, wanted_mask = self.expected(hf, messages, turns, before)
                    if wanted_ids[-1] != eos:    # what the template ends with is not said twice; what is added does not count
                        wanted_ids, wanted_mask = wanted_ids + [eos], wanted_mask + [0]
                    self.assertEqual(ids, wanted_ids, f"{name} {messages}")
                    self.assertEqual(mask, wanted_mask, f"{name} {messages}")

    def test_text_and_conversations_may_mix_and_a_template_may_be_a_file(self):
        folder = self.folder("file")
        (folder / "chat_template.jinja").write_text(chat_templates.CHATML)
        data = self.file("mix.jsonl", '{"text": "abc"}\n{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n')
        tokens, prefix, done = self.tokenize(data, model=folder)
        bits = numpy.unpackbits(numpy.fromfile(f"{prefix}.mask", dtype=numpy.uint8), bitorder="little")
        self.assertTrue(bits[:len(tokens[0])].all())
        self.assertIn("count for the loss", done.stdout)

    def test_templates_by_name(self):
        named = self.folder("named", [{"name": "rag", "template": "x"}, {"name": "default", "template": chat_templates.CHATML}])
        one = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
        tokens, _, _ = self.tokenize(self.file("n.jsonl", one), model=named)
        self.assertEqual(self.tokenizer.decode(tokens[0][:-1], skip_special_tokens=False), "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n")

    def test_what_a_template_refuses_or_leaves_uncertain_is_named(self):
        mistral, echo = self.folder("m", chat_templates.MISTRAL), self.folder("e", chat_templates.ECHO)
        two = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
        self.refused(self.file("k.jsonl", json.dumps({"messages": two})), "k.jsonl:1:", "user and assistant must take turns", model=mistral)
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bb"}, {"role": "user", "content": "ccc"}]
        self.refused(self.file("l.jsonl", "\n" + json.dumps({"messages": turns})), "l.jsonl:2:", "message 1", "{% generation %}", model=echo)
        always = self.folder("always", chat_templates.ALWAYS)
        self.refused(self.file("l.jsonl", json.dumps({"messages": turns})), "l.jsonl:1:", "message 1", "add_generation_prompt", model=always)
        for bad, says in (([], "has no messages"), (["a"], "message 0 is a string"), ([{"content": "a"}], "message 0 has no role")):
            self.refused(self.file("m.jsonl", json.dumps({"messages": bad})), "m.jsonl:1:", says, model=mistral)
        broken = self.folder("broken", "{% if %}")
        self.refused(self.file("m.jsonl", json.dumps({"messages": turns})), "m.jsonl:1:", "does not parse", model=broken)
        self.tokenize(self.file("n.txt", "text needs no template"), model=broken)


class Training(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        (cls.at / "runs").mkdir()
        cls.config = cls.at / "config.json"
        cls.config.write_text(json.dumps(files.CONFIG | {"vocab_size": cls.vocab, "eos_token_id": EOS}))
        cls.one = cls.at / "one.jsonl"
        cls.one.write_text("".join(json.dumps({"text": prose(300, seed)}) + "\n" for seed in range(40)))
        cls.two = cls.at / "two.txt"
        cls.two.write_text(prose(9000, 7))

    def train(self, name, data, *overrides, code=0, resume=False):
        run = {"model": {"config": str(self.config)}, "data": {"train": data, "seq_len": 16, "tokenizer": str(self.model / "tokenizer.json")},
               "run": {"steps": 3, "output": str(self.at / "runs" / name)}, "train_micro_batch_size_per_gpu": 4}
        path = self.file(f"{name}.json", json.dumps(run))
        done = self.sheaf("train", path, *overrides, *(["--resume"] if resume else []), code=code)
        return done

    def losses(self, name):
        return [json.loads(line)["loss"] for line in (self.at / "runs" / name / "metrics.jsonl").read_text().splitlines()]

    def test_text_is_tokenized_once_and_trains_as_its_token_file_does(self):
        data = self.file("once.jsonl", "".join(json.dumps({"text": prose(300, seed)}) + "\n" for seed in range(100, 140)))
        self.assertIn("tokenizing into", self.train("first", str(data)).stdout)
        again = self.train("second", str(data)).stdout
        self.assertIn("made before", again)
        self.assertNotIn("tokenizing into", again)
        self.assertTrue(list((self.at / "runs/.sheaf_cache").glob("*.idx")))
        _, prefix, _ = self.tokenize(data)
        self.train("third", f"{prefix}.bin")
        self.assertEqual(self.losses("first"), self.losses("second"))
        self.assertEqual(self.losses("first"), self.losses("third"))
        self.train("fourth", str(data), f"data.cache={self.at}/elsewhere")
        self.assertEqual(len(list((self.at / "elsewhere").glob("*.idx"))), 1)

    def test_a_mixture_says_its_epochs_resumes_exactly_and_knows_its_weights(self):
        mixture = [{"path": str(self.one), "weight": 0.75}, {"path": str(self.two), "weight": 0.25}]
        done = self.train("whole", mixture, "run.steps=8")
        self.assertIn("75.00 % of the rows", done.stdout)
        self.train("parts", mixture, "run.steps=4", "run.save_every=2")
        self.train("parts", mixture, "run.steps=8", "run.save_every=2", resume=True)
        self.assertEqual(self.losses("whole"), self.losses("parts"))
        other = [{"path": str(self.one), "weight": 0.5}, {"path": str(self.two), "weight": 0.5}]
        self.assertIn("files", self.train("parts", other, "run.steps=9", resume=True, code=2).stderr)
        self.train("plain", [str(self.one), str(self.two)])

    def test_conversations_train_on_the_answers(self):
        folder = self.folder("chat", chat_templates.CHATML)
        data = self.file("chat.jsonl", "".join(json.dumps({"messages": [{"role": "user", "content": prose(60, i)}, {"role": "assistant", "content": "yes"}]})
                                               + "\n" for i in range(40)))
        done = self.train("chat", str(data), f"data.tokenizer={folder}/tokenizer.json", "data.packing=documents", "data.seq_len=80")
        answer = len(self.ids("yes<|im_end|>\n"))
        for line in (self.at / "runs/chat/metrics.jsonl").read_text().splitlines():
            tokens = json.loads(line)["tokens"]    # whole answers, one or two a row
            self.assertTrue(tokens % answer == 0 and 4 * answer <= tokens <= 8 * answer, tokens)


unittest.main()
