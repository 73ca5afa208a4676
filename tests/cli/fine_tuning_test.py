"""docs/fine_tuning.md, command by command, as a user would type it:  fine_tuning_test.py SHEAF

The stand-ins: a tiny Qwen3 with a tokenizer trained on this repository's documentation, that documentation as texts, and conversations.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

SHEAF = pathlib.Path(sys.argv[1]).absolute()
DOCS = pathlib.Path(__file__).absolute().parents[2] / "docs"
TEMPLATE = ("{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")


def make_model(folder, texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|start|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    torch.manual_seed(1)
    Qwen3ForCausalLM(Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, eos_token_id=tokenizer.token_to_id("<|end|>"), bos_token_id=None)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, "eos_token": "<|end|>"}))


def main(work):
    texts = {path.stem: path.read_text() for path in sorted(DOCS.glob("*.md"))}
    (work / "texts").mkdir()
    for name, text in texts.items():
        (work / "texts" / f"{name}.txt").write_text(text)
    make_model(work / "Qwen3-0.6B", texts.values())
    with open(work / "chat.jsonl", "w") as out:
        for i in range(150):
            turns = [("user", f"What is {i} plus {i + 1}?"), ("assistant", f"It is {2 * i + 1}."), ("user", "Sure?"), ("assistant", "Yes.")]
            print(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}), file=out)

    page = (DOCS / "fine_tuning.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.S)
    environment = {**os.environ, "PATH": f"{SHEAF.parent}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
    outputs = {}
    for kind, text in blocks:
        if kind == "jsonc":
            (work / "run.json").write_text(text)
            continue
        for command in text.strip().splitlines():
            done = subprocess.run(command, shell=True, cwd=work, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
            outputs[command] = done.stdout
    assert len(outputs) == page.count("\nsheaf ") + page.count("\npython3 ") >= 10    # none was missed

    def loss(command):
        return float(re.search(r"loss ([\d.]+)", outputs[command])[1])

    before = loss("sheaf eval --model Qwen3-0.6B --data texts --seq-len 256")
    after = loss("sheaf eval --model out/model --data texts --seq-len 256 --logprobs logprobs.safetensors")
    assert after < before - 0.3, (before, after)    # from 6.4, that is ln 600, down to what letters are worth
    metrics = [json.loads(line) for line in (work / "out/metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == list(range(1, 81))
    assert [m["step"] for m in metrics if "eval_loss" in m] == [20, 40, 60, 80]
    assert sorted(p.name for p in (work / "out/checkpoints").iterdir()) == ["step_00000060", "step_00000080"]
    for folder in ("out/model", "model-60", "out-chat/model", "out-mixed/model"):
        AutoModelForCausalLM.from_pretrained(work / folder)
        assert (work / folder / "tokenizer.json").exists(), folder
    chat = [json.loads(line) for line in (work / "out-chat/metrics.jsonl").read_text().splitlines()]
    assert all(0 < m["tokens"] < 0.6 * 2048 for m in chat)    # the assistant's turns only: less than half of a conversation
    print(f"fine_tuning.md: {len(outputs)} commands; loss {before:.2f} -> {after:.2f}")


if __name__ == "__main__":
    work = pathlib.Path(tempfile.mkdtemp(prefix="sheaf-fine-tuning-"))
    try:
        main(work)
    finally:
        shutil.rmtree(work)
