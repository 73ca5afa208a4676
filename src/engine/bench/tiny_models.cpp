#include "engine/bench/tiny_models.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {

// 256 bytes for tokens. Heads, tokens and experts allow tp 2, sp 2 and ep 4 together.
const char* const kTinyDefaults = R"({
  "vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.05, "eos_token_id": 0, "dtype": "float32"})";

const std::vector<TinyModel>& tiny_models() {
  static const std::vector<TinyModel> models = {
      {"mixtral", "6 experts, which 4 ranks share unevenly, 2 of them for a token; sliding window; auxiliary loss", R"({
        "num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 48, "sliding_window": 24,
        "output_router_logits": true, "router_aux_loss_coef": 0.02})"},
      {"qwen2_moe", "a gated shared expert, a dense first layer, biases of q, k and v; auxiliary loss", R"({
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48,
        "num_hidden_layers": 3, "mlp_only_layers": [0], "head_dim": null, "output_router_logits": true, "router_aux_loss_coef": 0.02})"},
      {"qwen3_moe", "norms of q and k, normalized weights of experts; auxiliary loss", R"({
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": true,
        "output_router_logits": true, "router_aux_loss_coef": 0.02})"},
      {"olmoe", "3 experts for a token, norms over all heads, clipped q, k and v; auxiliary loss", R"({
        "num_experts": 8, "num_experts_per_tok": 3, "intermediate_size": 32, "num_key_value_heads": 4, "head_dim": null, "clip_qkv": 2.0,
        "output_router_logits": true, "router_aux_loss_coef": 0.02})"},
      {"deepseek_v2", "latent attention, 2 shared experts, a dense first layer, the best 2 of 4 groups by their best expert", R"({
        "num_key_value_heads": 4, "head_dim": null, "kv_lora_rank": 24, "q_lora_rank": null, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
        "v_head_dim": 16, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 2,
        "first_k_dense_replace": 1, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2})"},
      {"deepseek_v3", "latent attention, q too; sigmoid router with a correction bias that balances; the best 2 of 4 groups; yarn", R"({
        "num_key_value_heads": 4, "head_dim": null, "kv_lora_rank": 24, "q_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
        "v_head_dim": 16, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "rope_scaling": {"type": "yarn", "factor": 4.0,
        "original_max_position_embeddings": 128, "mscale": 1.0, "mscale_all_dim": 1.0}})",
       0.001},
      {"glm4_moe", "sigmoid router with a correction bias that balances, a shared expert, a dense first layer, half of a head rotates", R"({
        "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "use_qk_norm": true, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}})",
       0.001},
      {"gpt_oss", "sinks, every other layer with a window, biases of router and experts, clamped swiglu; auxiliary loss", R"({
        "num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 32, "sliding_window": 16, "swiglu_limit": 7.0,
        "output_router_logits": true, "router_aux_loss_coef": 0.02})"},
      {"ernie4_5_moe", "router in fp32 with a correction bias, 2 shared experts, a dense first layer, tied head; auxiliary loss", R"({
        "moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 2, "moe_layer_start_index": 1,
        "use_bias": true, "tie_word_embeddings": true, "head_dim": null, "output_router_logits": true, "router_aux_loss_coef": 0.02})"},
      {"minimax_m2", "sigmoid router with a correction bias, norms over all heads, half of a head rotates; auxiliary loss", R"({
        "num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 32,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        "output_router_logits": true, "router_aux_loss_coef": 0.02})"},
      {"llama4_text", "4 experts, 1 for a token and weighed at its input, in every other layer; a shared expert; attention in chunks", R"({
        "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size": 32, "intermediate_size_mlp": 96, "num_hidden_layers": 4,
        "interleave_moe_layer_step": 2, "attention_chunk_size": 16, "floor_scale": 16})"},
  };
  return models;
}

std::vector<std::string> tiny_families() {
  std::vector<std::string> names;
  for (const TinyModel& model : tiny_models()) names.emplace_back(model.family);
  return names;
}

std::vector<TinyModel> chosen_tiny_models(const std::vector<std::string>& families) {
  if (families.empty()) return tiny_models();
  std::vector<TinyModel> chosen;
  for (const std::string& name : families) {
    const auto found = std::find_if(tiny_models().begin(), tiny_models().end(), [&](const TinyModel& m) { return m.family == name; });
    if (found == tiny_models().end())
      user_error("--families: no family {}{}\nthere are {}", quote(name), did_you_mean(name, tiny_families()), join(tiny_families(), ", "));
    const bool again = std::any_of(chosen.begin(), chosen.end(), [&](const TinyModel& m) { return m.family == name; });
    if (!again) chosen.push_back(*found);
  }
  return chosen;
}

}    // namespace sheaf
