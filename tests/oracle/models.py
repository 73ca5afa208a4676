"""Tiny HuggingFace models and their numbers: FOLDER/NAME/{config.json, model.safetensors, oracle.safetensors}, one folder per function of
FIXTURES. config.json is the file that both sides read. model.safetensors: parameters and buffers under the names that they have in memory.
oracle.safetensors: ids, labels (shifted: what each position predicts, -100 does not count), positions, logits, loss, grad.NAME, and
choices.I of the I-th layer with experts: where each token went; document_ends of packed rows. Beside them a table of numbers: rope.json.
"""
import json

ROWS, SEQ = 2, 24


def write(folder, model_type, change=lambda model: None, ends=None, **config):
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    # Larger weights than HF's 0.02: with those every logit is nearly the same and an error would not show.
    config = dict(vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                  initializer_range=0.15) | config
    config = {"model_type": model_type} | {key: value for key, value in config.items() if value != "missing"}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), attn_implementation="eager", experts_implementation="eager",
                                             dtype=torch.float32)
    # Buffers that are saved: what experts are chosen by.
    buffers = {name: b for name, b in model.named_buffers() if name in model.state_dict()}
    with torch.no_grad():
        for name, p in (*model.named_parameters(), *buffers.items()):
            if name.endswith("norm.weight") or name.endswith("bias"):    # else ones and zeros: an error in them would not show
                p.add_(torch.randn_like(p), alpha=0.2)
            elif not p.any():    # ernie's routers
                p.normal_(std=0.15)
        change(model)
    choices = []
    for module in model.modules():
        if type(module).__name__.endswith("Router"):
            module.register_forward_hook(lambda module, _, out: choices.append(
                out[2] if len(out) == 3 else torch.topk(out[1], module.top_k, dim=1).indices))    # llama4's gives scores and logits
    ids = torch.randint(0, config["vocab_size"], (ROWS, SEQ))
    labels = torch.where(torch.rand(ROWS, SEQ) < 0.2, -100, ids)
    shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    positions = torch.arange(SEQ).expand(ROWS, SEQ)
    packed = {}
    if ends:    # documents of each row: positions that start again are what HF finds them by
        begins = torch.tensor([[max((end for end in row if end <= i), default=0) for i in range(SEQ)] for row in ends])
        positions = positions - begins
        packed = dict(position_ids=positions, use_cache=False)
    out = model(ids, labels=labels, **packed)
    out.loss.backward()
    tensors = {"ids": ids, "labels": shifted, "positions": positions, "logits": out.logits, "loss": out.loss}
    tensors |= {"grad." + name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    tensors |= {f"choices.{i}": chosen.view(ROWS, SEQ, -1) for i, chosen in enumerate(choices)}
    tensors |= {"document_ends": torch.tensor(ends)} if ends else {}
    for name, chosen in (("oracle", tensors), ("model", dict(model.named_parameters()) | buffers)):
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


# ---- mixtures of experts
def skew(model):
    """Router logits that are multiples of one another: the tokens go to the first experts or to the last, and those between get none."""
    import torch

    for module in model.modules():
        if type(module).__name__.endswith("Router"):
            n = module.weight.shape[0]
            module.weight.copy_(module.weight[:1] * torch.linspace(1.5, -1, n)[:, None])


def large_experts(model):
    """Activations beyond the clamp of gpt_oss."""
    for name, p in model.named_parameters():
        if name.endswith("gate_up_proj"):
            p.mul_(4)


def mixtral(folder):
    write(folder, "mixtral", num_local_experts=8, num_experts_per_tok=2)


def mixtral_aux_window(folder):
    write(folder, "mixtral", skew, num_local_experts=7, num_experts_per_tok=3, sliding_window=7, head_dim=24, output_router_logits=True,
          router_aux_loss_coef=0.5, hidden_act="gelu")


QWEN = dict(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=24)


def qwen2_moe(folder):
    write(folder, "qwen2_moe", **QWEN, shared_expert_intermediate_size=40)


def qwen2_moe_sliding_aux(folder):
    write(folder, "qwen2_moe", skew, **QWEN, shared_expert_intermediate_size=20, num_hidden_layers=4, decoder_sparse_step=2,
          mlp_only_layers=[3], use_sliding_window=True, sliding_window=5, max_window_layers=3, norm_topk_prob=True, qkv_bias=False,
          output_router_logits=True)


def qwen3_moe(folder):
    write(folder, "qwen3_moe", **QWEN, head_dim=16)


def qwen3_moe_sliding_aux(folder):
    write(folder, "qwen3_moe", **QWEN | dict(num_experts="missing", num_local_experts=6), head_dim=8, norm_topk_prob=True,
          attention_bias=True, use_sliding_window=True, sliding_window=6, output_router_logits=True, router_aux_loss_coef=0.3,
          tie_word_embeddings=True)


def olmoe(folder):
    write(folder, "olmoe", num_experts=8, num_experts_per_tok=3, num_key_value_heads="missing")


def olmoe_clip_aux(folder):
    write(folder, "olmoe", num_experts=8, num_experts_per_tok=2, clip_qkv=0.8, attention_bias=True, norm_topk_prob=True, pad_token_id=None,
          output_router_logits=True, router_aux_loss_coef=0.2)


MLA = dict(num_key_value_heads=4, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10, n_routed_experts=8,
           num_experts_per_tok=3, moe_intermediate_size=24)
YARN = {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "mscale": 0.707, "mscale_all_dim": 1.1}


def deepseek_v2(folder):
    write(folder, "deepseek_v2", **MLA, q_lora_rank=None, first_k_dense_replace=1, topk_method="greedy", rope_theta=1e4)


def deepseek_v2_groups_yarn(folder):
    write(folder, "deepseek_v2", **MLA, q_lora_rank=24, topk_method="group_limited_greedy", n_group=4, topk_group=2,
          routed_scaling_factor=1.7, n_shared_experts=1, attention_bias=True, mlp_bias=True, rope_scaling=YARN, max_position_embeddings=128)


def deepseek_v3(folder):
    write(folder, "deepseek_v3", **MLA, q_lora_rank=24, n_group=4, topk_group=2, first_k_dense_replace=1, topk_method="noaux_tc",
          scoring_func="sigmoid")


def deepseek_v3_yarn(folder):
    write(folder, "deepseek_v3", **MLA, q_lora_rank=None, n_group=1, topk_group=1, first_k_dense_replace=0, norm_topk_prob=False,
          rope_interleave=False, attention_bias=True, rope_scaling=YARN, routed_scaling_factor=0.7)


def deepseek_v3_dense(folder):
    write(folder, "deepseek_v3", **MLA, q_lora_rank=16, n_group=2, topk_group=1, first_k_dense_replace=2, rope_scaling=YARN | {"mscale": 1.1})


GLM = dict(n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=24, head_dim=16)


def glm4_moe(folder):
    write(folder, "glm4_moe", **GLM, attention_bias=True)


def glm4_moe_groups_qk_norm(folder):
    write(folder, "glm4_moe", **GLM, n_group=2, topk_group=1, n_shared_experts=2, use_qk_norm=True, norm_topk_prob=False,
          routed_scaling_factor=1.5, first_k_dense_replace=0, rope_parameters={"rope_theta": 1e5, "partial_rotary_factor": 0.25})


def gpt_oss(folder):
    write(folder, "gpt_oss", large_experts, num_local_experts=8, num_experts_per_tok=3, head_dim=16, sliding_window=5, swiglu_limit=7.0)


def gpt_oss_aux(folder):
    write(folder, "gpt_oss", skew, num_local_experts=6, num_experts_per_tok=2, head_dim=32, attention_bias=False, sliding_window=5,
          layer_types=["full_attention", "full_attention"], rope_parameters={"rope_type": "default", "rope_theta": 1e4},
          output_router_logits=True, router_aux_loss_coef=0.9)


def ernie4_5_moe(folder):
    write(folder, "ernie4_5_moe", moe_num_experts=8, moe_k=3, moe_intermediate_size=24, use_bias=True)


def ernie4_5_moe_aux(folder):
    write(folder, "ernie4_5_moe", num_experts=8, num_experts_per_tok=2, moe_intermediate_size=24, moe_num_shared_experts=0,
          num_hidden_layers=5, moe_layer_start_index=0, moe_layer_interval=2, moe_layer_end_index=2, moe_norm_min=0.6,
          tie_word_embeddings=False, pad_token_id=None, output_router_logits=True, router_aux_loss_coef=0.4)


def minimax_m2(folder):
    write(folder, "minimax_m2", num_local_experts=8, num_experts_per_tok=3, head_dim=16, rope_parameters={"partial_rotary_factor": 0.5})


def minimax_m2_aux(folder):
    write(folder, "minimax_m2", skew, num_local_experts=8, num_experts_per_tok=2, head_dim=24, rope_theta=1e4, output_router_logits=True,
          router_aux_loss_coef=0.3)


LLAMA4 = dict(num_local_experts=4, intermediate_size=40, intermediate_size_mlp=72, head_dim=16, rope_theta=5e5)


def llama4(folder):
    write(folder, "llama4_text", **LLAMA4, num_hidden_layers=4, num_experts_per_tok=1, interleave_moe_layer_step=2, attention_chunk_size=9,
          floor_scale=8)


def llama4_top2(folder):
    write(folder, "llama4_text", **LLAMA4, num_experts_per_tok=2, moe_layers=[0, 1], use_qk_norm=False, attn_temperature_tuning=False,
          no_rope_layers=[1, 1], layer_types=["chunked_attention", "full_attention"], attention_chunk_size=6, attention_bias=True)


def llama4_packed(folder):
    write(folder, "llama4_text", ends=[[3, 11], [9, 20]], **LLAMA4, num_experts_per_tok=1, attention_chunk_size=9, no_rope_layer_interval=2,
          floor_scale=5)


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
            mistral_window, mistral_no_window, qwen2, qwen2_sliding_tied, qwen3, qwen3_tied_default_head_dim, qwen3_bias_layer_types, mixtral,
            mixtral_aux_window, qwen2_moe, qwen2_moe_sliding_aux, qwen3_moe, qwen3_moe_sliding_aux, olmoe, olmoe_clip_aux, deepseek_v2,
            deepseek_v2_groups_yarn, deepseek_v3, deepseek_v3_yarn, deepseek_v3_dense, glm4_moe, glm4_moe_groups_qk_norm, gpt_oss,
            gpt_oss_aux, ernie4_5_moe, ernie4_5_moe_aux, minimax_m2, minimax_m2_aux, llama4, llama4_top2,
            llama4_packed)
