#include <gtest/gtest.h>

#include "base/error.h"
#include "base/text.h"
#include "models/decoder.h"
#include "models/model.h"
#include "ops/op_table.h"

using namespace sheaf;

namespace {

const char* const kBase =
    R"({"vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4})";

// What families with experts want besides; the others ignore it.
const char* const kExperts =
    R"({"num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_group": 2, "topk_group": 1,
        "first_k_dense_replace": 1, "shared_expert_intermediate_size": 20, "intermediate_size_mlp": 48})";

// The base config of a family with some keys changed; a null is kept as null.
Json config(const std::string& model_type, const char* changes = "{}") {
  Json json = parse_json(kBase, "base");
  json["model_type"] = model_type;
  const Json patch = parse_json(changes, "changes");
  for (const auto& [key, value] : patch.items()) json[key] = value;
  return json;
}
ModelConfig parse(const std::string& model_type, const char* changes = "{}") { return parse_model_config(config(model_type, changes)); }

std::vector<std::int64_t> windows(const ModelConfig& c) {
  std::vector<std::int64_t> out;
  for (const LayerConfig& layer : c.layers) out.push_back(layer.window);
  return out;
}

}    // namespace

TEST(ModelConfig, old_and_new_spellings_mean_the_same) {
  const ModelConfig old =
      parse("llama", R"({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4}, "torch_dtype": "bfloat16"})");
  const ModelConfig fresh =
      parse("llama", R"({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000}, "dtype": "bfloat16"})");
  EXPECT_EQ(old.rope, fresh.rope);
  EXPECT_EQ(old.rope.theta, 5e5);
  EXPECT_EQ(old.dtype, DType::bf16);
  EXPECT_EQ(fresh.dtype, DType::bf16);
  EXPECT_EQ(parse("llama", R"({"rope_scaling": null, "rope_theta": 2e4})").rope,
            parse("llama", R"({"rope_parameters": {"rope_theta": 2e4}})").rope);
}

TEST(ModelConfig, missing_and_null_keys_take_the_defaults_of_the_family) {
  EXPECT_EQ(parse("llama").kv_heads, 4);
  EXPECT_EQ(parse("llama", R"({"num_key_value_heads": null})").kv_heads, 4);
  EXPECT_EQ(parse("mistral", R"({"num_attention_heads": 16})").kv_heads, 8);
  EXPECT_EQ(parse("llama", R"({"head_dim": null})").head_dim, 16);
  EXPECT_EQ(parse("qwen3", R"({"num_key_value_heads": 2})").head_dim, 128);
  EXPECT_EQ(parse("qwen3", R"({"num_key_value_heads": 2, "head_dim": null})").head_dim, 16);
  EXPECT_EQ(parse("llama").max_positions, 2048);
  EXPECT_EQ(parse("llama").padding_id, std::nullopt);
  EXPECT_EQ(parse("llama", R"({"pad_token_id": -1})").padding_id, 255);
  EXPECT_EQ(parse("llama", R"({"eos_token_id": [7, 9]})").eos_id, 7);
  EXPECT_EQ(parse("llama", R"({"eos_token_id": 3})").eos_id, 3);
}

TEST(ModelConfig, sliding_windows_follow_the_family) {
  using W = std::vector<std::int64_t>;
  EXPECT_EQ(windows(parse("llama")), (W{0, 0, 0, 0}));
  const char* kv = R"({"num_key_value_heads": 4})";
  EXPECT_EQ(windows(parse("mistral", kv)), (W{4096, 4096, 4096, 4096}));
  EXPECT_EQ(windows(parse("mistral", R"({"num_key_value_heads": 4, "sliding_window": null})")), (W{0, 0, 0, 0}));
  EXPECT_EQ(windows(parse("qwen2", R"({"num_key_value_heads": 4, "sliding_window": 9})")), (W{0, 0, 0, 0}));
  EXPECT_EQ(
      windows(parse("qwen2", R"({"num_key_value_heads": 4, "sliding_window": 9, "use_sliding_window": true, "max_window_layers": 3})")),
      (W{0, 0, 0, 9}));
  EXPECT_EQ(windows(parse("qwen3", R"({"num_key_value_heads": 4, "sliding_window": 9, "use_sliding_window": true,
                               "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]})")),
            (W{9, 0, 0, 9}));
}

// Of a family with experts: its keys, and these.
std::string with_experts(const std::string& changes) {
  Json json = parse_json(kExperts, "experts");
  json.update(parse_json("{" + changes + "}", "changes"));
  return json.dump();
}

struct Bad {
  const char* model_type;
  std::string changes;
  std::vector<const char*> said;    // each must be in the message
};

TEST(ModelConfig, each_error_names_file_key_value_and_what_is_supported) {
  const Bad bad[] = {
      {"gpt2", "{}", {"'model_type'", "\"gpt2\"", "supported: llama, mistral, qwen2, qwen3, mixtral"}},
      {"qwen", "{}", {"did you mean 'qwen2'?"}},
      {"llama", R"({"model_type": null})", {"'model_type' is missing", "llama"}},
      {"llama", R"({"model_type": 3})", {"'model_type' is 3", "a string was wanted"}},
      {"llama", R"({"hidden_size": null})", {"'hidden_size' is missing"}},
      {"llama", R"({"hidden_size": "64"})", {"'hidden_size' is \"64\"", "an integer was wanted"}},
      {"llama", R"({"hidden_size": 64.5})", {"'hidden_size' is 64.5", "an integer was wanted"}},
      {"llama", R"({"vocab_size": 0})", {"'vocab_size' is 0", "a positive integer"}},
      {"llama", R"({"vocab_size": 4294967296})", {"'vocab_size'", "below 2^31"}},
      {"llama", R"({"vocab_size": 18446744073709551615})", {"'vocab_size'", "an integer was wanted"}},
      {"llama", R"({"vocab_size": 2147483647, "hidden_size": 2147483644})", {"'hidden_size'", "larger than any machine"}},
      {"llama", R"({"num_hidden_layers": 2000000})", {"'num_hidden_layers'", "at most 10000"}},
      {"llama", R"({"num_key_value_heads": 3})", {"'num_attention_heads' is 4", "'num_key_value_heads' (3)"}},
      {"qwen2", "{}", {"'num_key_value_heads' (32, the default of qwen2)"}},
      {"llama", R"({"num_attention_heads": 5})", {"'hidden_size' is 64", "'num_attention_heads' (5)", "'head_dim'"}},
      {"llama", R"({"head_dim": 15})", {"15 channels", "even"}},
      {"llama", R"({"hidden_act": "tanh"})", {"'hidden_act' is \"tanh\"", "supported: silu", "gelu_new", "relu"}},
      {"llama", R"({"tie_word_embeddings": 1})", {"'tie_word_embeddings' is 1", "true or false"}},
      {"llama", R"({"rms_norm_eps": "1e-6"})", {"'rms_norm_eps'", "a number was wanted"}},
      {"llama", R"({"rms_norm_eps": -1})", {"'rms_norm_eps' is -1", "at least 0"}},
      {"llama", R"({"quantization_config": {"bits": 4}})", {"'quantization_config'", "not supported"}},
      {"llama", R"({"is_causal": false})", {"'is_causal'", "causal"}},
      {"llama", R"({"dtype": "float8_e4m3fn"})", {"'dtype' is \"float8_e4m3fn\"", "supported: float32, bfloat16, float16"}},
      {"llama", R"({"torch_dtype": "int8"})", {"'torch_dtype'", "supported"}},
      {"llama", R"({"pad_token_id": 256})", {"'pad_token_id' is 256", "vocab_size 256"}},
      {"llama", R"({"eos_token_id": "</s>"})", {"'eos_token_id'", "an integer was wanted"}},
      {"llama", R"({"sliding_window": 16})", {"'sliding_window' is 16", "a llama model has none"}},
      {"mistral", R"({"num_key_value_heads": 4, "attention_bias": true})", {"'attention_bias' is true", "a mistral model never has"}},
      {"qwen2", R"({"num_key_value_heads": 4, "attention_bias": false})", {"'attention_bias' is false", "a qwen2 model always has"}},
      {"qwen2", R"({"num_key_value_heads": 4, "layer_types": ["full_attention"]})", {"'layer_types'", "a list of 4 names"}},
      {"qwen2", R"({"num_key_value_heads": 4, "layer_types": ["a", "b", "c", "d"]})", {"supported: full_attention, sliding_attention"}},
      {"qwen2",
       R"({"num_key_value_heads": 4, "layer_types": ["sliding_attention", "full_attention", "full_attention", "full_attention"]})",
       {"use_sliding_window"}},
      {"llama", R"({"partial_rotary_factor": 0.5})", {"'partial_rotary_factor' is 0.5", "whole heads"}},
      {"llama", R"({"partial_rotary_factor": 2})", {"'partial_rotary_factor' is 2", "at most 1"}},
      {"llama", R"({"rope_theta": 0})", {"'rope_theta' is 0", "above 1"}},
      {"llama", R"({"rope_scaling": "linear"})", {"rope_scaling", "an object was wanted"}},
      {"llama",
       R"({"rope_scaling": {"type": "mrope"}})",
       {"config.json: rope_scaling: 'type' is \"mrope\"", "supported: default, linear, dynamic, llama3, yarn, longrope"}},
      {"llama", R"({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}})", {"'full_attention'", "not supported"}},
      {"llama", R"({"rope_scaling": {"rope_type": "linear"}})", {"rope_scaling: 'factor' is missing"}},
      {"llama", R"({"rope_scaling": {"rope_type": "linear", "factor": 0}})", {"'factor' is 0", "above 0"}},
      {"llama",
       R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}})",
       {"'high_freq_factor' is 4", "more than"}},
      {"llama", R"({"rope_scaling": {"rope_type": "yarn"}})", {"'factor' is missing"}},
      {"llama",
       R"({"rope_scaling": {"rope_type": "longrope", "short_factor": [1]}})",
       {"'short_factor'", "8 numbers were wanted", "not 1"}},
      {"llama", R"({"rope_scaling": {"rope_type": "dynamic", "factor": 2}, "head_dim": 2})", {"dynamic", "more than 2"}},
      {"mixtral", R"({"num_key_value_heads": 4})", {"'num_experts' is missing", "num_local_experts"}},
      {"mixtral", R"({"num_key_value_heads": 4, "num_local_experts": 8})", {"'num_experts_per_tok' is missing"}},
      {"mixtral",
       R"({"num_key_value_heads": 4, "num_local_experts": 8, "num_experts_per_tok": 9})",
       {"'num_experts_per_tok' is 9", "at most 'num_local_experts' (8)"}},
      {"mixtral",
       R"({"num_key_value_heads": 4, "num_experts": 8, "num_local_experts": 6, "num_experts_per_tok": 2})",
       {"'num_local_experts' is 6", "'num_experts' is 8"}},
      {"mixtral", R"({"num_key_value_heads": 4, "router_jitter_noise": 0.1})", {"'router_jitter_noise' is 0.1", "mixtral", "0"}},
      {"qwen3_moe", R"({"num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 2})", {"'moe_intermediate_size' is missing"}},
      {"qwen3_moe",
       R"({"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 4, "mlp_only_layers": [4]})",
       {"'mlp_only_layers' is [4]", "from 0 to 3"}},
      {"qwen2_moe",
       R"({"num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 4})",
       {"'shared_expert_intermediate_size' is missing"}},
      {"olmoe", R"({"head_dim": 8, "num_experts": 8, "num_experts_per_tok": 2})", {"'head_dim' is 8", "'hidden_size' (64)"}},
      {"olmoe", R"({"vocab_size": 1, "num_experts": 8, "num_experts_per_tok": 2})", {"'pad_token_id' is 1 (the default of olmoe)"}},
      {"deepseek_v2", with_experts(R"("topk_method": "noaux_tc")"), {"'topk_method' is \"noaux_tc\"", "greedy, group_limited_greedy"}},
      {"deepseek_v2",
       with_experts(R"("scoring_func": "sigmoid")"),
       {"'scoring_func' is \"sigmoid\"", "of a deepseek_v2 model \"softmax\""}},
      {"deepseek_v2", with_experts(R"("norm_topk_prob": true)"), {"'norm_topk_prob' is true", "false"}},
      {"deepseek_v2", with_experts(R"("num_key_value_heads": 2)"), {"'num_key_value_heads' is 2", "'num_attention_heads' (4)"}},
      {"deepseek_v2", with_experts(R"("output_router_logits": true)"), {"'output_router_logits' is true", "no auxiliary loss"}},
      {"deepseek_v3", with_experts(R"("scoring_func": "softmax")"), {"'scoring_func' is \"softmax\"", "\"sigmoid\""}},
      {"deepseek_v3", with_experts(R"("n_group": 3)"), {"'n_group' is 3", "number of experts (8)"}},
      {"deepseek_v3", with_experts(R"("n_group": 8)"), {"'n_group' is 8", "groups of 1", "at least 2"}},
      {"deepseek_v3", with_experts(R"("topk_group": 3)"), {"'topk_group' is 3", "'n_group' (2)"}},
      {"deepseek_v3", with_experts(R"("num_experts_per_tok": 5)"), {"'topk_group' is 1", "1 groups of 4 experts", "5"}},
      {"deepseek_v3", with_experts(R"("quantization_config": {"quant_method": "fp8"})"), {"'quantization_config'", "mxfp4 of gpt_oss"}},
      {"gpt_oss", with_experts(R"("hidden_act": "gelu")"), {"'hidden_act' is \"gelu\"", "of a gpt_oss model \"silu\""}},
      {"gpt_oss", with_experts(R"("swiglu_limit": 5.0)"), {"'swiglu_limit' is 5.0", "7"}},
      {"gpt_oss",
       with_experts(R"("sliding_window": null, "layer_types": ["sliding_attention", "full_attention", "full_attention",
         "full_attention"])"),
       {"'layer_types'", "sliding_attention needs sliding_window"}},
      {"minimax_m2", with_experts(R"("scoring_func": "softmax")"), {"'scoring_func'", "minimax_m2"}},
      {"ernie4_5_moe", with_experts(R"("moe_k": 3)"), {"'moe_k' is 3", "'num_experts_per_tok' is 2"}},
      {"llama4_text", with_experts(R"("attention_chunk_size": null)"), {"'attention_chunk_size' is null", "needs a size"}},
      {"llama4_text", with_experts(R"("no_rope_layers": [1])"), {"'no_rope_layers' is [1]", "4 numbers"}},
      {"llama4_text",
       with_experts(R"("layer_types": ["sliding_attention", "full_attention", "full_attention", "full_attention"])"),
       {"'layer_types'", "full_attention, chunked_attention"}},
  };
  for (const Bad& b : bad) {
    try {
      parse(b.model_type, b.changes.c_str());
      ADD_FAILURE() << b.model_type << " with " << b.changes << " is accepted";
    } catch (const UserError& error) {
      const std::string message = error.what();
      EXPECT_TRUE(message.starts_with("config.json: ")) << message;
      for (const char* part : b.said) EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks: " << part;
    }
  }
  EXPECT_THROW(parse_model_config(parse_json("[]", "x")), UserError);
  EXPECT_THROW(build_model(config("llama", R"({"attention_dropout": 0.1})"), {1, 4}, DType::fp32), UserError);
}

TEST(ModelConfig, every_supported_family_builds) {
  for (const std::string& type : supported_model_types())
    for (const DType compute : {DType::fp32, DType::bf16}) {
      const Graph graph = build_model(config(type, kExperts), {2, 8}, compute);
      verify(graph, Level::l1);
      EXPECT_EQ(print(parse_graph(print(graph), all_ops())), print(graph)) << type << ": text does not round-trip";
    }
}

TEST(ModelConfig, an_embedding_with_padding_says_so) {
  const Graph graph = build_model(config("llama", R"({"pad_token_id": 5})"), {1, 4}, DType::fp32);
  EXPECT_EQ(graph[graph.find("model.embed_tokens.weight")].attrs.integer("zero_row"), 5);
}

TEST(ModelConfig, the_language_model_of_images_and_text_is_found) {
  Json text = config("llama4_text", kExperts);
  text.erase("model_type");
  const ModelConfig c = parse_model_config({{"model_type", "llama4"}, {"text_config", text}, {"torch_dtype", "bfloat16"}});
  EXPECT_EQ(c.model_type, "llama4_text");
  EXPECT_EQ(c.dtype, DType::bf16);
  EXPECT_EQ(c.moe->experts, 8);
}

// minimax_m2's published file says so in its own words, which HF's class does not read.
TEST(ModelConfig, rotary_dim_is_a_share_of_the_head) {
  EXPECT_EQ(parse("minimax_m2", with_experts(R"("head_dim": 16, "rotary_dim": 8)").c_str()).rope.partial_rotary_factor, 0.5);
  EXPECT_EQ(parse("minimax_m2", with_experts(R"("head_dim": 16)").c_str()).rope.partial_rotary_factor, 1);
  EXPECT_EQ(parse("glm4_moe", kExperts).rope.partial_rotary_factor, 0.5);
}

TEST(ModelConfig, layers_with_experts_follow_the_family) {
  using L = std::vector<int>;
  const auto routed = [](const char* type, const std::string& changes) {
    L out;
    for (const LayerConfig& layer : parse(type, with_experts(changes).c_str()).layers) out.push_back(layer.routed);
    return out;
  };
  EXPECT_EQ(routed("mixtral", ""), (L{1, 1, 1, 1}));
  EXPECT_EQ(routed("qwen3_moe", R"("decoder_sparse_step": 2)"), (L{0, 1, 0, 1}));
  EXPECT_EQ(routed("qwen3_moe", R"("mlp_only_layers": [0, 2])"), (L{0, 1, 0, 1}));
  EXPECT_EQ(routed("deepseek_v3", R"("first_k_dense_replace": null)"), (L{0, 0, 0, 1}));
  EXPECT_EQ(routed("glm4_moe", R"("first_k_dense_replace": null)"), (L{0, 1, 1, 1}));
  EXPECT_EQ(routed("ernie4_5_moe", ""), (L{0, 1, 1, 1}));
  EXPECT_EQ(routed("ernie4_5_moe", R"("moe_layer_end_index": 2, "moe_layer_start_index": 0)"), (L{1, 1, 1, 0}));
  EXPECT_EQ(routed("llama4_text", R"("interleave_moe_layer_step": 2)"), (L{0, 1, 0, 1}));
  EXPECT_EQ(routed("llama4_text", R"("moe_layers": [2])"), (L{0, 0, 1, 0}));
}

namespace {

// Elements of the trained states, and those that a token is multiplied with.
struct Parameters {
  double all = 0, active = 0;
};
Parameters parameters(const ModelConfig& c) {
  Graph graph;
  Builder b(graph);
  build_decoder(b, c, {1, 2});
  Parameters sum;
  for (const Value v : graph.all(ValueKind::state)) {
    const ValueInfo& state = graph[v];
    if (!state.attrs.flag("trainable")) continue;
    const auto n = static_cast<double>(num_elements(state.type.shape));
    const bool matrix = !state.name.ends_with("bias") && state.name.find("norm.") == std::string::npos && !state.name.ends_with("sinks") &&
                        (c.tied_head || state.name != "model.embed_tokens.weight");
    const double share =
        state.name.find(".experts.") == std::string::npos ? 1 : static_cast<double>(c.moe->top_k) / static_cast<double>(c.moe->experts);
    sum.all += n;
    if (matrix) sum.active += n * share;
  }
  return sum;
}

}    // namespace

// Published models: the number of parameters that their makers give, and the work per token, from the states themselves.
TEST(ModelConfig, published_models_have_their_number_of_parameters) {
  struct Model {
    const char* name;
    const char* config;
    double parameters;
  };
  const Model models[] = {
      {"Qwen3-30B-A3B",
       R"({"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
           "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
           "vocab_size": 151936})",
       30532122624},
      {"Qwen1.5-MoE-A2.7B",
       R"({"model_type": "qwen2_moe", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16,
           "intermediate_size": 5632, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632, "num_experts": 60,
           "num_experts_per_tok": 4, "vocab_size": 151936})",
       14315784192},
      {"Mixtral-8x7B",
       R"({"model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 14336, "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000})",
       46702792704},
      {"DeepSeek-V2-Lite",
       R"({"model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16,
           "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64, "num_experts_per_tok": 6,
           "n_shared_experts": 2, "first_k_dense_replace": 1, "q_lora_rank": null, "vocab_size": 102400})",
       15706484224},
      {"DeepSeek-V3",
       R"({"model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
           "num_key_value_heads": 128, "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256,
           "num_experts_per_tok": 8, "vocab_size": 129280})",
       671026404352},    // 671,026,419,200 with the correction biases, which are not trained
      {"OLMoE-1B-7B",
       R"({"model_type": "olmoe", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 16,
           "intermediate_size": 1024, "num_experts": 64, "num_experts_per_tok": 8, "vocab_size": 50304})",
       6919161856},
      {"gpt-oss-20b",
       R"({"model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64, "num_key_value_heads": 8,
           "head_dim": 64, "intermediate_size": 2880, "num_local_experts": 32, "num_experts_per_tok": 4, "vocab_size": 201088})",
       20914757184},
      {"GLM-4.5-Air",
       R"({"model_type": "glm4_moe", "hidden_size": 4096, "num_hidden_layers": 46, "num_attention_heads": 96, "num_key_value_heads": 8,
           "head_dim": 128, "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 128, "num_experts_per_tok": 8,
           "attention_bias": true, "vocab_size": 151552})",
       106852245504},    // 106,852,251,264 with the correction biases
  };
  for (const Model& model : models) {
    const ModelConfig c = parse_model_config(parse_json(model.config, model.name));
    const Parameters found = parameters(c);
    EXPECT_EQ(found.all, model.parameters) << model.name;
    EXPECT_EQ(found.active, matmul_parameters(c)) << model.name;
  }
  for (const std::string& type : supported_model_types()) {
    const ModelConfig c = parse(type, kExperts);
    EXPECT_EQ(parameters(c).active, matmul_parameters(c)) << type;
  }
}

// Llama-2-7B: 6738415616 parameters, of which the embedding has 32000 x 4096 and the 65 norms 4096 each.
TEST(ModelConfig, flops_of_llama_2_7b_are_six_per_matmul_parameter_and_the_causal_half_of_attention) {
  const ModelConfig c = parse(
      "llama",
      R"({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32})");
  EXPECT_EQ(matmul_parameters(c), 6738415616.0 - 32000.0 * 4096 - 65 * 4096);
  EXPECT_EQ(model_flops_per_token(c, 4096), 6 * matmul_parameters(c) + 6.0 * 32 * 4096 * 4096);
  ModelConfig windowed = c;
  for (LayerConfig& layer : windowed.layers) layer.window = 4096;
  EXPECT_EQ(model_flops_per_token(windowed, 4096), model_flops_per_token(c, 4096));
  EXPECT_LT(model_flops_per_token(windowed, 8192), model_flops_per_token(c, 8192));
}
