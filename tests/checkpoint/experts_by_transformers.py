"""experts_by_transformers.py CHECKPOINT_TEST: mixtures of experts that transformers wrote are read to the bit, in every form, and what is
written from them loads in transformers, again to the bit."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config

SMALL = dict(vocab_size=64, hidden_size=64, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
             max_position_embeddings=64, pad_token_id=None, bos_token_id=1, eos_token_id=2)
MLA = dict(n_routed_experts=12, num_experts_per_tok=2, moe_intermediate_size=24, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4,
           v_head_dim=8, first_k_dense_replace=1)
FAMILIES = {
    "mixtral": dict(num_local_experts=12, num_experts_per_tok=2),    # more than ten: their order is not that of their names
    "qwen2_moe": dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=12),
    "qwen3_moe": dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=8),
    "olmoe": dict(num_experts=4, num_experts_per_tok=2),    # gate and up together are square
    "deepseek_v2": MLA | dict(q_lora_rank=None),
    "deepseek_v3": MLA | dict(q_lora_rank=8, n_group=2, topk_group=1),
    "glm4_moe": dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, first_k_dense_replace=1, head_dim=8),
    "ernie4_5_moe": dict(moe_num_experts=4, moe_k=2, moe_intermediate_size=24),
    "minimax_m2": dict(num_local_experts=4, num_experts_per_tok=2, head_dim=8),
    "gpt_oss": dict(num_local_experts=4, num_experts_per_tok=2, head_dim=8),
    "llama4_text": dict(num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=20, head_dim=8),
}
FUSED_ONLY = ("gpt_oss", "llama4_text")


def state_of(model):
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def note_weights(folder, state):
    (folder / "weights.json").write_text(json.dumps([[name, list(tensor.shape)] for name, tensor in state.items()]))


def check(condition, *where):
    assert condition, where


def mxfp4_folder(folder):
    """gpt_oss as it was published. Every code and, but for those that overflow bf16, every scale."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt_oss", **(SMALL | FAMILIES["gpt_oss"]))).to(torch.bfloat16)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            experts, inputs, outputs = tensor.shape
            tensors[name + "_blocks"] = torch.randint(256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
            tensors[name + "_scales"] = torch.randint(253, (experts, outputs, inputs // 32), dtype=torch.uint8)
        else:
            tensors[name] = tensor.clone()
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = model.config.to_dict() | {"dtype": "bfloat16", "architectures": ["GptOssForCausalLM"], "quantization_config": {
        "quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}}
    (folder / "config.json").write_text(json.dumps(config))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=Mxfp4Config(dequantize=True))
    return state_of(model)


def main():
    torch.manual_seed(7)
    with tempfile.TemporaryDirectory() as target:
        target = pathlib.Path(target)
        states, forms = {}, {}
        (target / "in").mkdir()
        for family, keys in FAMILIES.items():
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(SMALL | keys)))
            for tensor in list(model.parameters()) + [b for n, b in model.named_buffers() if "correction_bias" in n]:
                torch.nn.init.normal_(tensor.data)
            model.save_pretrained(target / family)
            for dtype in (torch.float32, torch.bfloat16):
                model = AutoModelForCausalLM.from_pretrained(target / family, dtype=dtype)
                for original in (True, False):    # as on the Hub, as in memory
                    name = f"{family}-{'hub' if original else 'memory'}-{dtype}"
                    model.save_pretrained(target / "in" / name, save_original_format=original)
                    note_weights(target / "in" / name, state_of(model))
                    states[name], forms[name] = state_of(model), "separate" if original and family not in FUSED_ONLY else "fused"
        states["gpt_oss-mxfp4-torch.bfloat16"] = mxfp4_folder(target / "in/gpt_oss-mxfp4-torch.bfloat16")
        note_weights(target / "in/gpt_oss-mxfp4-torch.bfloat16", states["gpt_oss-mxfp4-torch.bfloat16"])
        forms["gpt_oss-mxfp4-torch.bfloat16"] = "mxfp4"

        subprocess.run([sys.argv[1], "--gtest_brief=1", "--gtest_filter=ExpertsForPython.*"], check=True,
                       env=os.environ | {"SHEAF_TEST_CONVERT": str(target)})
        for name, state in states.items():
            check((target / f"form_{name}").read_text() == forms[name], name)
            read = load_file(target / "read" / name / "model.safetensors")
            check(read.keys() == state.keys(), name, read.keys() ^ state.keys())
            for key, tensor in state.items():
                check(torch.equal(read[key].view(torch.int32), tensor.to(torch.float32).view(torch.int32)), name, key)
            for form in ("fused", "separate"):
                if form == "separate" and name.startswith(FUSED_ONLY):
                    continue
                # The names that transformers itself writes, then what it reads of them.
                as_saved = target / "in" / name.replace("memory" if form == "separate" else "hub", "hub" if form == "separate" else "memory")
                if "mxfp4" not in name:
                    wanted, found = load_file(as_saved / "model.safetensors"), load_file(target / form / name / "model.safetensors")
                    check(found.keys() == wanted.keys(), name, form, found.keys() ^ wanted.keys())
                model, report = AutoModelForCausalLM.from_pretrained(target / form / name, output_loading_info=True)
                check(not any(report.values()), name, form, report)
                loaded = state_of(model)
                for key, tensor in state.items():
                    check(loaded[key].dtype == tensor.dtype and torch.equal(loaded[key], tensor), name, form, key)
    print(f"ok: {len(states)} folders")


main()
