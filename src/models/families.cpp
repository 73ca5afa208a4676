#include "models/families.h"

#include <algorithm>
#include <array>

#include "base/text.h"

namespace sheaf {
namespace {

// A new family of this shape is one row, and one in moe_config.cpp if it has experts.
constexpr std::array kFamilies = {
    Family{.model_type = "llama", .qkv_bias = Bias::by_key, .o_bias = Bias::by_key, .mlp_bias = Bias::by_key, .max_positions = 2048},
    Family{.model_type = "mistral", .sliding = Sliding::all_layers, .kv_heads = 8, .max_positions = 131072},
    Family{.model_type = "qwen2", .qkv_bias = Bias::always, .sliding = Sliding::from_layer, .kv_heads = 32, .max_positions = 32768},
    Family{.model_type = "qwen3",
           .qkv_bias = Bias::by_key,
           .o_bias = Bias::by_key,
           .qk_norm = QkNorm::head,
           .sliding = Sliding::from_layer,
           .kv_heads = 32,
           .head_dim = 128,
           .max_positions = 32768},
    Family{.model_type = "mixtral",
           .sliding = Sliding::all_layers,
           .window = 0,
           .kv_heads = 8,
           .max_positions = 131072,
           .theta = 1e6,
           .rms_eps = 1e-5},
    Family{.model_type = "qwen2_moe",
           .qkv_bias = Bias::by_key,
           .bias_key = "qkv_bias",
           .bias = true,
           .sliding = Sliding::below_layer,
           .kv_heads = 16,
           .max_positions = 32768},
    Family{.model_type = "qwen3_moe",
           .qkv_bias = Bias::by_key,
           .o_bias = Bias::by_key,
           .qk_norm = QkNorm::head,
           .sliding = Sliding::if_used,
           .kv_heads = 4,
           .max_positions = 32768},
    Family{.model_type = "olmoe",
           .qkv_bias = Bias::by_key,
           .o_bias = Bias::by_key,
           .qk_norm = QkNorm::all_heads,
           .max_positions = 4096,
           .rms_eps = 1e-5,
           .padding_id = 1},
    Family{.model_type = "deepseek_v2",
           .qkv_bias = Bias::by_key,
           .o_bias = Bias::by_key,
           .mlp_bias = Bias::by_key,
           .max_positions = 2048,
           .rope_interleaved = true,
           .mla = true},
    Family{.model_type = "deepseek_v3",
           .qkv_bias = Bias::by_key,
           .o_bias = Bias::by_key,
           .max_positions = 4096,
           .rope_interleaved = true,
           .mla = true},
    Family{.model_type = "glm4_moe",
           .qkv_bias = Bias::by_key,
           .qk_norm = QkNorm::head,
           .use_qk_norm = false,
           .kv_heads = 8,
           .max_positions = 131072,
           .rotary_share = 0.5,
           .rms_eps = 1e-5},
    Family{.model_type = "gpt_oss",
           .qkv_bias = Bias::by_key,
           .o_bias = Bias::by_key,
           .bias = true,
           .sliding = Sliding::even_layers,
           .window = 128,
           .kv_heads = 8,
           .head_dim = 64,
           .max_positions = 131072,
           .theta = 150000,
           .rope = R"({"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
                       "original_max_position_embeddings": 4096})",
           .rms_eps = 1e-5,
           .fp32_norms = true,
           .sinks = true},
    Family{.model_type = "ernie4_5_moe",
           .qkv_bias = Bias::by_key,
           .o_bias = Bias::by_key,
           .mlp_bias = Bias::by_key,
           .bias_key = "use_bias",
           .mlp_bias_key = "use_bias",
           .kv_heads = 4,
           .max_positions = 131072,
           .theta = 500000,
           .rope_interleaved = true,
           .rms_eps = 1e-5,
           .head_bias = true,
           .tied_head = true,
           .padding_id = 0},
    Family{.model_type = "minimax_m2",
           .qk_norm = QkNorm::all_heads,
           .kv_heads = 8,
           .head_dim = 128,
           .max_positions = 196608,
           .theta = 5000000,
           .rotary_share = 1},
    Family{.model_type = "llama4_text",
           .qkv_bias = Bias::by_key,
           .o_bias = Bias::by_key,
           .qk_norm = QkNorm::unweighted,
           .use_qk_norm = true,
           .sliding = Sliding::chunks,
           .kv_heads = 8,
           .head_dim = 128,
           .max_positions = 131072,
           .theta = 500000,
           .rope_interleaved = true,
           .rms_eps = 1e-5,
           .mlp_name = "feed_forward",
           .intermediate_key = "intermediate_size_mlp"},
};

constexpr FixedKey kFixedKeys[] = {
    {"mixtral", "router_jitter_noise", "0"},
    {"deepseek_v2", "scoring_func", R"("softmax")"},
    {"deepseek_v2", "norm_topk_prob", "false"},
    {"deepseek_v2", "moe_layer_freq", "1"},
    {"deepseek_v3", "scoring_func", R"("sigmoid")"},
    {"deepseek_v3", "topk_method", R"("noaux_tc")"},
    {"deepseek_v3", "moe_layer_freq", "1"},
    {"glm4_moe", "scoring_func", R"("sigmoid")"},
    {"glm4_moe", "topk_method", R"("noaux_tc")"},
    {"gpt_oss", "hidden_act", R"("silu")"},
    {"gpt_oss", "swiglu_limit", "7"},
    {"minimax_m2", "router_jitter_noise", "0"},
    {"minimax_m2", "scoring_func", R"("sigmoid")"},
    {"minimax_m2", "use_routing_bias", "true"},
    {"minimax_m2", "use_qk_norm", "true"},
    {"minimax_m2", "qk_norm_type", R"("per_layer")"},
    {"minimax_m2", "shared_intermediate_size", "0"},
};

}    // namespace

const Family* find_family(std::string_view model_type) {
  const auto* const found = std::find_if(kFamilies.begin(), kFamilies.end(), [&](const Family& f) { return f.model_type == model_type; });
  return found == kFamilies.end() ? nullptr : found;
}

std::vector<std::string> supported_model_types() {
  std::vector<std::string> names;
  names.reserve(kFamilies.size());
  for (const Family& family : kFamilies) names.emplace_back(family.model_type);
  return names;
}

void check_fixed_keys(const ConfigReader& r, const Family& family) {
  for (const FixedKey& fixed : kFixedKeys) {
    const std::string key(fixed.key);
    if (fixed.model_type != family.model_type || !r.has(key) || *r.find(key) == parse_json(std::string(fixed.value), key)) continue;
    r.refuse(key, fmt::format("of a {} model {} is supported", family.model_type, fixed.value));
  }
}

}    // namespace sheaf
