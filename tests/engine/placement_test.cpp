// From a configuration to a mesh, a plan and ZeRO's options; degrees that do not fit.
#include "engine/placement.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "models/model_config.h"

using namespace sheaf;

namespace {

Json model_json(std::int64_t heads, std::int64_t kv_heads, bool tied = false) {
  return {{"model_type", "qwen3"},           {"vocab_size", 64},       {"hidden_size", 16},
          {"intermediate_size", 24},         {"num_hidden_layers", 1}, {"num_attention_heads", heads},
          {"num_key_value_heads", kv_heads}, {"head_dim", 4},          {"tie_word_embeddings", tied}};
}

Options options_of(const std::string& keys, std::int64_t ranks, const Json& model = model_json(8, 4)) {
  const std::string text = R"({"model": "m", "data": {"train": "t.bin", "seq_len": 8}, "run": {"steps": 1},
                              "train_micro_batch_size_per_gpu": 1)" +
                           (keys.empty() ? "" : ", " + keys) + "}";
  Options options;
  set_placement(options, parse_config(text, "run.json", {}, ranks).config, model, parse_model_config(model));
  return options;
}

std::string error_of(const std::string& keys, std::int64_t ranks, const Json& model = model_json(8, 4)) {
  try {
    options_of(keys, ranks, model);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " is not in: " << text;
}

}    // namespace

TEST(Placement, one_rank_has_no_mesh) { EXPECT_EQ(print(options_of("", 1)), print(Options{.tile_rows = 2048})); }

TEST(Placement, a_checkpointed_model_computes_its_layers_again) {
  EXPECT_EQ(options_of("", 1).recompute, "none");
  EXPECT_EQ(options_of(R"("activation_checkpointing": {"number_checkpoints": 4})", 1).recompute, "block");
}

TEST(Placement, degrees_become_axes) {
  EXPECT_EQ(options_of("", 4).mesh, "mesh a0=4    axes dp=a0 sp=. tp=.");
  EXPECT_EQ(options_of(R"("tensor_parallel": {"autotp_size": 2}, "sequence_parallel_size": 2)", 8).mesh,
            "mesh a2=2 a1=2 a0=2    axes dp=a2 sp=a1 tp=a0");
}

// Head atoms go to kv heads while they divide, from the major side; what is left is for the query heads of each.
TEST(Placement, an_axis_is_cut_where_kv_heads_end) {
  EXPECT_EQ(options_of(R"("tensor_parallel": {"autotp_size": 8})", 8).mesh, "mesh a1=4 a0=2    axes dp=. sp=. tp=a1.a0");
  EXPECT_EQ(options_of(R"("tensor_parallel": {"autotp_size": 2}, "sequence_parallel_size": 4)", 8).mesh,
            "mesh a2=2 a1=2 a0=2    axes dp=. sp=a2.a1 tp=a0");
}

TEST(Placement, shorter_suffixes_are_cut_points) {
  const Options mics = options_of(R"("zero_optimization": {"stage": 3, "mics_shard_size": 4})", 8);
  EXPECT_EQ(mics.mesh, "mesh a1=2 a0=4    axes dp=a1.a0 sp=. tp=.");
  EXPECT_EQ(mics.shard_ranks, 4);
  const Options hpz =
      options_of(R"("zero_optimization": {"stage": 3, "zero_hpz_partition_size": 2}, "tensor_parallel": {"autotp_size": 2})", 8);
  EXPECT_EQ(hpz.mesh, "mesh a2=2 a1=2 a0=2    axes dp=a2.a1 sp=. tp=a0");
  EXPECT_EQ(hpz.gather_ranks, 2);
}

TEST(Placement, the_plan_is_partition_config_then_config_json_then_the_family) {
  const std::string tp = R"("tensor_parallel": {"autotp_size": 2)";
  const std::string family = options_of(tp + "}", 2).tp_plan;
  expect_parts(family, {"layers.*.self_attn.q_proj colwise", "layers.*.mlp.down_proj rowwise", "embed_tokens embedding_rowwise",
                        "lm_head colwise_gather_output"});
  EXPECT_EQ(options_of(tp + "}", 2, model_json(8, 4, true)).tp_plan.find("lm_head"), std::string::npos) << "a tied model has none";
  Json own = model_json(8, 4);
  own["base_model_tp_plan"] = {{"layers.*.mlp.up_proj", "colwise"}};
  EXPECT_EQ(options_of(tp + "}", 2, own).tp_plan,
            "layers.*.mlp.up_proj colwise; embed_tokens embedding_rowwise; lm_head colwise_gather_output");
  const std::string specs =
      R"(, "partition_config": {"layer_specs": [{"patterns": [".*\\.o_proj\\.weight$"], "partition_type": "row", "gather_output": true},
                                                {"patterns": [".*q_norm.*"], "partition_type": "skip"},
                                                {"patterns": ["x"], "partition_type": "column", "model_types": ["mixtral"]}])";
  EXPECT_EQ(options_of(tp + specs + "}}", 2).tp_plan, R"(re:.*\.o_proj\.weight$ rowwise; re:.*q_norm.* replicated; )" + family);
  EXPECT_EQ(options_of(tp + specs + R"(, "use_default_specs": false}})", 2).tp_plan,
            R"(re:.*\.o_proj\.weight$ rowwise; re:.*q_norm.* replicated; )");
}

TEST(Placement, what_does_not_fit_is_refused_with_the_sizes) {
  expect_parts(error_of(R"("tensor_parallel": {"autotp_size": 16})", 16), {"autotp_size 16", "8 attention heads", "at most 8 fits"});
  expect_parts(error_of(R"("sequence_parallel_size": 16)", 16), {"sequence_parallel_size 16", "8 tokens of a row"});
  expect_parts(error_of(R"("zero_optimization": {"stage": 3, "mics_shard_size": 3})", 8), {"mics_shard_size", "found 3", "8 ranks"});
  const auto spec = [](const std::string& s) {
    return error_of(R"("tensor_parallel": {"autotp_size": 2, "partition_config": {"layer_specs": [)" + s + "]}}", 2);
  };
  expect_parts(spec("3"), {"layer_specs[0]", "wanted an object", "found 3"});
  expect_parts(spec(R"({"pattern": ["a"]})"), {"unknown key 'pattern'", "did you mean 'patterns'?"});
  expect_parts(spec(R"({"patterns": ["a"], "partition_type": "diagonal"})"), {"diagonal", R"("column", "row" or "skip")"});
  expect_parts(spec(R"({"patterns": []})"), {"layer_specs[0]", "a list of regular expressions"});
}
