// A whole training step on simulated ranks, run in lock-step in one thread, against the same step on one: integer mode, so every value of
// the graph must be equal to the bit, whatever the mesh.
#include <gtest/gtest.h>

#include "models/model.h"
#include "passes/pass.h"
#include "support/compare_steps.h"

using namespace sheaf;
using sheaf::testing::StepPair;

namespace {

// The plan that the configurations of these families name, and the vocabulary over tp.
constexpr const char* kPlan =
    "layers.*.self_attn.q_proj colwise; layers.*.self_attn.k_proj colwise; layers.*.self_attn.v_proj colwise; "
    "layers.*.self_attn.o_proj rowwise; layers.*.mlp.gate_proj colwise; layers.*.mlp.up_proj colwise; layers.*.mlp.down_proj rowwise; "
    "embed_tokens embedding_rowwise";

struct Shapes {
  std::int64_t heads, kv_heads, rows = 4, seq = 6, documents = 0;
  bool bias = false, tied = false;
  std::int64_t micro_batches = 1;
};

Graph step_of(const Shapes& shapes, const std::string& mesh) {
  const Json config = {{"model_type", shapes.bias ? "qwen2" : "qwen3"},
                       {"vocab_size", 17},
                       {"hidden_size", 8},
                       {"intermediate_size", 10},
                       {"num_hidden_layers", 1},
                       {"num_attention_heads", shapes.heads},
                       {"num_key_value_heads", shapes.kv_heads},
                       {"head_dim", 4},
                       {"max_position_embeddings", 64},
                       {"tie_word_embeddings", shapes.tied},
                       {"rms_norm_eps", 1e-6}};
  Graph graph = build_model(config, {.rows = shapes.rows, .seq_len = shapes.seq, .documents = shapes.documents}, DType::fp32);
  std::vector<Pass> passes = training_passes();
  // Storage, and what another name has than on one rank.
  std::erase_if(passes, [](const Pass& pass) { return pass.name == "flatten" || pass.name == "fuse" || pass.name == "join_products"; });
  Options options;
  options.num_micro_batches = shapes.micro_batches;
  options.mesh = mesh;
  options.tp_plan = std::string(kPlan) + (shapes.tied ? "" : "; lm_head colwise_gather_output");
  return RunPasses{}(std::move(graph), passes, options);
}

// Every value of the step on the mesh equals that of the step on one rank. Returns how many moves there are.
std::size_t expect_equal(const Shapes& shapes, const std::string& mesh) {
  const Graph one = step_of(shapes, ""), placed = step_of(shapes, mesh);
  StepPair pair(one, placed, {});
  EXPECT_EQ(pair.step(), "") << print(placed);
  return pair.num_moves();
}

// Small models of the families with experts: what they have in attention, and experts that no axis cuts.
Graph step_with_experts(Json config, const std::string& mesh) {
  const Json base = {{"vocab_size", 17},
                     {"hidden_size", 8},
                     {"intermediate_size", 10},
                     {"num_hidden_layers", 2},
                     {"num_attention_heads", 4},
                     {"num_key_value_heads", 2},
                     {"num_experts", 5},
                     {"num_experts_per_tok", 2},
                     {"moe_intermediate_size", 3},
                     {"head_dim", 4},
                     {"max_position_embeddings", 64}};
  for (const auto& [key, value] : base.items())
    if (!config.contains(key)) config[key] = value;
  Graph graph = build_model(config, {.rows = 4, .seq_len = 6}, DType::fp32);
  std::vector<Pass> passes = training_passes();
  // Storage, and what another name has than on one rank.
  std::erase_if(passes, [](const Pass& pass) { return pass.name == "flatten" || pass.name == "fuse" || pass.name == "join_products"; });
  Options options;
  options.mesh = mesh;
  options.zero_stage = 2;
  options.tp_plan = "layers.*.self_attn.o_proj rowwise; embed_tokens embedding_rowwise; ";
  for (const char* name : {"q_proj", "k_proj", "v_proj", "q_b_proj", "kv_b_proj"})
    options.tp_plan += fmt::format("?layers.*.self_attn.{} colwise; ", name);
  for (const char* mlp : {"mlp", "mlp.shared_expert", "mlp.shared_experts", "feed_forward", "feed_forward.shared_expert"})
    options.tp_plan +=
        fmt::format("?layers.*.{0}.gate_proj colwise; ?layers.*.{0}.up_proj colwise; ?layers.*.{0}.down_proj rowwise; ", mlp);
  return RunPasses{}(std::move(graph), passes, options);
}

}    // namespace

TEST(Placed, families_with_experts) {
  const Json mla = {{"num_key_value_heads", 4}, {"kv_lora_rank", 6}, {"qk_nope_head_dim", 3}, {"qk_rope_head_dim", 2}, {"v_head_dim", 5}};
  const auto with = [](Json json, const Json& more) { return json.update(more), json; };
  const Json models[] = {
      with(mla, {{"model_type", "deepseek_v3"}, {"q_lora_rank", 7}, {"n_group", 1}, {"topk_group", 1}, {"first_k_dense_replace", 1}}),
      with(mla, {{"model_type", "deepseek_v2"}, {"q_lora_rank", nullptr}, {"first_k_dense_replace", 1}}),
      {{"model_type", "olmoe"}, {"head_dim", 2}, {"clip_qkv", 1.0}, {"output_router_logits", true}},
      {{"model_type", "gpt_oss"}, {"sliding_window", 3}},
      {{"model_type", "qwen2_moe"}, {"shared_expert_intermediate_size", 6}, {"mlp_only_layers", {0}}},
      {{"model_type", "ernie4_5_moe"}, {"use_bias", true}},
      {{"model_type", "minimax_m2"}, {"output_router_logits", true}},
      {{"model_type", "llama4_text"},
       {"intermediate_size_mlp", 6},
       {"attention_chunk_size", 4},
       {"floor_scale", 3},
       {"no_rope_layer_interval", 2},
       {"interleave_moe_layer_step", 2}},
  };
  for (const Json& model : models)
    for (const char* mesh : {"mesh a0=2    axes dp=a0", "mesh a0=2    axes tp=a0", "mesh a0=3    axes sp=a0",
                             "mesh a2=2 a1=2 a0=2    axes dp=a2 sp=a1 tp=a0"}) {
      SCOPED_TRACE(fmt::format("{}, {}", model.at("model_type").dump(), mesh));
      const Graph one = step_with_experts(model, ""), placed = step_with_experts(model, mesh);
      StepPair pair(one, placed, {});
      EXPECT_EQ(pair.step(), "");
      EXPECT_GT(pair.num_moves(), 0u);
    }
}

TEST(Placed, every_value_of_a_step_is_the_same_on_any_mesh) {
  const char* meshes[] = {
      "mesh a0=2    axes dp=a0",
      "mesh a0=2    axes tp=a0",
      "mesh a0=2    axes sp=a0",
      "mesh a0=3    axes tp=a0",
      "mesh a1=2 a0=2    axes dp=a1 tp=a0",
      "mesh a1=2 a0=2    axes dp=a1 sp=a0",
      "mesh a1=2 a0=2    axes sp=a1 tp=a0",
      "mesh a1=2 a0=2    axes tp=a1.a0",
      "mesh a2=2 a1=2 a0=2    axes dp=a2 sp=a1 tp=a0",
      "mesh a3=2 a2=2 a1=2 a0=2    axes dp=a3 sp=a2 tp=a1.a0",
  };
  for (const char* mesh : meshes)
    for (const Shapes& shapes : {Shapes{.heads = 8, .kv_heads = 4}, Shapes{.heads = 4, .kv_heads = 2, .bias = true, .micro_batches = 2},
                                 Shapes{.heads = 4, .kv_heads = 1, .documents = 2, .tied = true}, Shapes{.heads = 3, .kv_heads = 3}}) {
      SCOPED_TRACE(fmt::format("{}, {} heads, {} kv heads", mesh, shapes.heads, shapes.kv_heads));
      EXPECT_GT(expect_equal(shapes, mesh), 0u);
    }
}
