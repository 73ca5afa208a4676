"""Tiny HuggingFace models and their numbers: FOLDER/NAME/{config.json, model.safetensors, oracle.safetensors}, one folder per function of
FIXTURES. config.json is the file that both sides read. oracle.safetensors: ids, labels (shifted: what each position predicts, -100 does
not count), positions, logits, loss, grad.NAME. Beside them a table of numbers: rope.json.
"""
import json

ROWS, SEQ = 2, 24


def write(folder, model_type, **config):
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    # Larger weights than HF's 0.02: with those every logit is nearly the same and an error would not show.
    config = dict(vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  initializer_range=0.15) | config
    config = {"model_type": model_type} | {key: value for key, value in config.items() if value != "missing"}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight") or name.endswith(".bias"):    # else ones and zeros: an error in them would not show
                p.add_(torch.randn_like(p), alpha=0.2)
    ids = torch.randint(0, config["vocab_size"], (ROWS, SEQ))
    labels = torch.where(torch.rand(ROWS, SEQ) < 0.2, -100, ids)
    out = model(ids, labels=labels)
    out.loss.backward()
    shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    positions = torch.arange(SEQ).expand(ROWS, SEQ)
    tensors = {"ids": ids, "labels": shifted, "positions": positions, "logits": out.logits, "loss": out.loss}
    tensors |= {"grad." + name: p.grad for name, p in model.named_parameters()}
    for name, chosen in (("oracle", tensors), ("model", dict(model.named_parameters()))):
        save_file({name: t.detach().clone().contiguous() for name, t in chosen.items()}, folder / f"{name}.safetensors")


# ---- llama: biases, head, activations, spellings
def llama(folder):
    write(folder, "llama")


def llama_bias(folder):
    write(folder, "llama", attention_bias=True, mlp_bias=True)


def llama_tied(folder):
    write(folder, "llama", tie_word_embeddings=True, num_key_value_heads=None, dtype="bfloat16")


def llama_padding(folder):
    write(folder, "llama", pad_token_id=17, vocab_size=19)    # so few tokens that the padding one occurs


def llama_padding_tied(folder):
    write(folder, "llama", pad_token_id=-2, vocab_size=19, tie_word_embeddings=True)


def llama_old_spelling(folder):
    write(folder, "llama", rope_theta=5e5, rope_scaling=None, torch_dtype="float16", num_key_value_heads="missing", head_dim=None,
          pretraining_tp=1, eos_token_id=[5, 6], rms_norm_eps=1e-5)


def llama_gelu(folder):
    write(folder, "llama", hidden_act="gelu")


def llama_gelu_tanh(folder):
    write(folder, "llama", hidden_act="gelu_pytorch_tanh", head_dim=10)


def llama_gelu_new(folder):
    write(folder, "llama", hidden_act="gelu_new")


def llama_relu(folder):
    write(folder, "llama", hidden_act="relu")


# ---- rope: every type, in the new spelling and in the old one
def rope_linear(folder):
    write(folder, "llama", rope_scaling={"type": "linear", "factor": 4.0}, rope_theta=2e4)


def rope_dynamic(folder):
    write(folder, "llama", rope_parameters={"rope_type": "dynamic", "factor": 3.0, "rope_theta": 1e4}, max_position_embeddings=SEQ - 5)


def rope_dynamic_short(folder):
    write(folder, "llama", rope_scaling={"type": "dynamic", "factor": 3.0}, max_position_embeddings=SEQ)


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def rope_llama3(folder):
    write(folder, "llama", rope_scaling={"rope_type": "llama3"} | LLAMA3, rope_theta=5e5, head_dim=32)


def rope_llama3_new_spelling(folder):
    write(folder, "llama", rope_parameters={"rope_type": "llama3", "rope_theta": 1e3} | LLAMA3)


def rope_yarn(folder):
    rope = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    write(folder, "qwen2", rope_scaling=rope, max_position_embeddings=128)


def rope_yarn_mscale(folder):
    rope = {"rope_type": "yarn", "factor": 8, "mscale": 0.7, "mscale_all_dim": 1.2, "beta_fast": 16, "beta_slow": 2, "truncate": False,
            "original_max_position_embeddings": 256, "rope_theta": 500.0}
    write(folder, "llama", head_dim=32, rope_parameters=rope)


def rope_yarn_attention_factor(folder):
    write(folder, "llama", rope_parameters={"rope_type": "yarn", "factor": None, "attention_factor": 1.3, "rope_theta": 1e4,
          "original_max_position_embeddings": 128}, max_position_embeddings=640)


LONGROPE = {"short_factor": [1 + i / 16 for i in range(8)], "long_factor": [2 + i * i / 3 for i in range(8)]}


def rope_longrope_short(folder):
    write(folder, "llama", rope_parameters={"rope_type": "longrope", "original_max_position_embeddings": SEQ, "rope_theta": 1e4} | LONGROPE,
          max_position_embeddings=4 * SEQ)


def rope_longrope_long(folder):
    write(folder, "llama", rope_scaling={"type": "longrope", "factor": 3.0} | LONGROPE, original_max_position_embeddings=SEQ - 1,
          max_position_embeddings=4 * SEQ)


def rope_longrope_attention_factor(folder):
    write(folder, "llama", rope_scaling={"rope_type": "longrope", "attention_factor": 0.8} | LONGROPE, max_position_embeddings=SEQ - 1)


# ---- mistral
def mistral_window(folder):
    write(folder, "mistral", sliding_window=7, head_dim=24)


def mistral_no_window(folder):
    write(folder, "mistral", sliding_window=None, num_attention_heads=8, num_key_value_heads="missing", rope_theta=1e6,
          tie_word_embeddings=True)


# ---- qwen2
def qwen2(folder):
    write(folder, "qwen2", use_sliding_window=False, sliding_window=3, rope_theta=1e6)


def qwen2_sliding_tied(folder):
    write(folder, "qwen2", use_sliding_window=True, sliding_window=5, max_window_layers=1, tie_word_embeddings=True)


# ---- qwen3
def qwen3(folder):
    write(folder, "qwen3", head_dim=32, rope_theta=1e6)


def qwen3_tied_default_head_dim(folder):
    write(folder, "qwen3", tie_word_embeddings=True, num_key_value_heads=1)    # head_dim 128


def qwen3_bias_layer_types(folder):
    write(folder, "qwen3", head_dim=8, attention_bias=True, use_sliding_window=True, sliding_window=6,
          layer_types=["sliding_attention", "full_attention"])


# ---- tables
def rope_table(folder):
    """Frequencies at the sizes of real models: rope.json, a list of {config, seq_len, inv_freq, scaling}."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    import torch

    sizes = dict(vocab_size=8, hidden_size=4096, intermediate_size=8, num_hidden_layers=1, num_attention_heads=32,
                 max_position_embeddings=32768)
    factors = [1 + i / 7 for i in range(64)]
    llama3 = LLAMA3 | {"factor": 32, "original_max_position_embeddings": 8192}
    ropes = [{"rope_theta": 1e4}, {"rope_theta": 1e6}, {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.5},
             {"rope_theta": 1e4, "rope_type": "dynamic", "factor": 3.7}, {"rope_theta": 5e5, "rope_type": "llama3"} | llama3,
             {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
             {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192, "truncate": False,
              "mscale": 1.0, "mscale_all_dim": 0.6},
             {"rope_theta": 1e4, "rope_type": "longrope", "short_factor": factors, "long_factor": factors[::-1],
              "original_max_position_embeddings": 4096}]
    rows = []
    for rope in ropes:
        for seq in (4096, 32768, 40001):
            config = {"model_type": "llama", "rope_parameters": rope} | sizes
            module = LlamaRotaryEmbedding(LlamaConfig(**json.loads(json.dumps(config))))
            module(torch.zeros(1), torch.tensor([[seq - 1]]))
            rows.append({"config": config, "seq_len": seq, "inv_freq": module.inv_freq.tolist(), "scaling": module.attention_scaling})
    (folder / "rope.json").write_text(json.dumps(rows))


FIXTURES = (llama, llama_bias, llama_tied, llama_padding, llama_padding_tied, llama_old_spelling, llama_gelu, llama_gelu_tanh,
            llama_gelu_new, llama_relu, rope_linear, rope_dynamic, rope_dynamic_short, rope_llama3, rope_llama3_new_spelling, rope_yarn,
            rope_yarn_mscale, rope_yarn_attention_factor, rope_longrope_short, rope_longrope_long, rope_longrope_attention_factor,
            mistral_window, mistral_no_window, qwen2, qwen2_sliding_tied, qwen3, qwen3_tied_default_head_dim, qwen3_bias_layer_types)
