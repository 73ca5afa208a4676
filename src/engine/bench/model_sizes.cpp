#include "engine/bench/model_sizes.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

struct Entry {
  const char* name;
  const char* config;
};

constexpr const char* kQwen =
    R"("model_type": "qwen3_moe", "norm_topk_prob": true, "max_position_embeddings": 40960, "rope_theta": 1000000.0, "eos_token_id": 0)";

// The last three are published shapes; 30b-a3b-6l is that of Qwen3-30B-A3B with 6 of its 48 layers.
constexpr Entry kSizes[] = {
    {"tiny", R"("vocab_size": 1024, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "head_dim": 32, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128)"},
    {"small", R"("vocab_size": 4096, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
                 "num_key_value_heads": 4, "head_dim": 32, "num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 256)"},
    {"medium", R"("vocab_size": 32768, "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 16,
                  "num_key_value_heads": 4, "head_dim": 64, "num_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 512)"},
    {"30b-a3b-6l",
     R"("vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 6, "num_attention_heads": 32,
                      "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768)"},
    {"30b-a3b", R"("vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48, "num_attention_heads": 32,
                   "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768)"},
    {"deepseek-v3", R"("model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
                       "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "n_routed_experts": 256,
                       "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "n_shared_experts": 1, "n_group": 8, "topk_group": 4,
                       "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
                       "first_k_dense_replace": 3, "max_position_embeddings": 163840, "rope_theta": 10000.0, "eos_token_id": 1)"}};

}    // namespace

std::vector<std::string> model_size_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kSizes) names.emplace_back(entry.name);
  return names;
}

ModelSize model_size(const std::string& name) {
  const auto* const found = std::find_if(std::begin(kSizes), std::end(kSizes), [&](const Entry& entry) { return entry.name == name; });
  std::error_code ignored;
  ModelSize size{.name = name};
  if (found != std::end(kSizes)) {
    const bool qwen = std::string_view(found->config).find("model_type") == std::string_view::npos;
    size.config = parse_json(fmt::format("{{{}{}}}", qwen ? std::string(kQwen) + ", " : "", found->config), name);
  } else if (std::filesystem::is_regular_file(name, ignored)) {
    size.config = read_json(name);
  } else {
    user_error("--model-sizes: no size {}{}, nor a file\nthere are {}; or give the path of a config.json", quote(name),
               did_you_mean(name, model_size_names()), join(model_size_names(), ", "));
  }
  size.model = parse_model_config(size.config, name);
  if (!size.model.moe) user_error("{}: a {} model has no experts; sheaf bench moe wants one that has", name, size.model.model_type);
  return size;
}

}    // namespace sheaf
