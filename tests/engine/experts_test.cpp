// What a configuration says of experts: their axes, how tokens reach them, what does not fit the model.
#include "engine/experts.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "engine/expert_load.h"
#include "engine/placement.h"

using namespace sheaf;

namespace {

Json model_json(std::int64_t experts = 8, std::int64_t top_k = 2) {
  return {{"model_type", "qwen3_moe"},  {"vocab_size", 64},
          {"hidden_size", 16},          {"intermediate_size", 24},
          {"num_hidden_layers", 2},     {"num_attention_heads", 8},
          {"num_key_value_heads", 4},   {"head_dim", 4},
          {"num_experts", experts},     {"num_experts_per_tok", top_k},
          {"moe_intermediate_size", 6}, {"norm_topk_prob", true}};
}
Json dense_json() {
  Json model = model_json();
  model["model_type"] = "qwen3";
  for (const char* key : {"num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob"}) model.erase(key);
  return model;
}

Options options_of(const std::string& keys, std::int64_t ranks, const Json& model = model_json(),
                   const std::vector<std::string>& overrides = {}) {
  const std::string text = R"({"model": "m", "data": {"train": "t.bin", "seq_len": 8}, "run": {"steps": 1},
                              "train_micro_batch_size_per_gpu": 1, )" +
                           keys + "}";
  Options options;
  set_placement(options, parse_config(text, "run.json", overrides, ranks).config, model, parse_model_config(model));
  return options;
}
std::string section(const std::string& keys) { return R"("expert_parallel": {"enabled": true, )" + keys + "}"; }

void expect_error(const std::string& keys, std::int64_t ranks, const Json& model, const std::vector<std::string>& parts) {
  std::string found = "no error";
  try {
    options_of(keys, ranks, model);
  } catch (const UserError& error) {
    found = error.what();
  }
  for (const std::string& part : parts) EXPECT_NE(found.find(part), std::string::npos) << part << " is not in: " << found;
}

}    // namespace

TEST(Experts, their_axes_are_folded_into_the_same_ranks) {
  EXPECT_EQ(options_of(section(R"("autoep_size": 4)"), 4).mesh, "mesh a0=4    axes dp=a0 sp=. tp=. edp=. ep=a0 etp=.");
  EXPECT_EQ(options_of(section(R"("autoep_size": 2, "expert_tensor_parallel_size": 2)") +
                           R"(, "tensor_parallel": {"autotp_size": 2}, "sequence_parallel_size": 2)",
                       8)
                .mesh,
            "mesh a2=2 a1=2 a0=2    axes dp=a2 sp=a1 tp=a0 edp=a2 ep=a1 etp=a0");
  // Without the section they are cut as the rest of a layer is.
  EXPECT_EQ(options_of(R"("tensor_parallel": {"autotp_size": 2})", 4).mesh, "mesh a1=2 a0=2    axes dp=a1 sp=. tp=a0 edp=a1 ep=. etp=a0");
}

TEST(Experts, tokens_reach_them_by_what_sends_the_least) {
  const auto plan = [](std::int64_t ep, std::int64_t top_k, const std::vector<std::string>& overrides = {}) {
    return options_of(section("\"autoep_size\": " + std::to_string(ep)), ep, model_json(128, top_k), overrides).expert_plan;
  };
  EXPECT_EQ(plan(2, 8), "gather");    // 1 row a token; 4; 0.996
  EXPECT_EQ(plan(8, 2), "exact");     // 7; 1.75; 1.64
  EXPECT_EQ(plan(8, 8), "dedup");     // 7; 7; 4.6
  EXPECT_EQ(plan(64, 1), "exact");
  EXPECT_EQ(plan(64, 1, {"run.expert_plan=gather"}), "gather");
}

TEST(Experts, an_order_is_a_permutation) {
  const Json four = model_json(4, 2);
  const auto order = [&](const std::string& text) {
    try {
      return options_of(R"("zero_optimization": {"stage": 1})", 2, four, {"run.expert_order=" + text}).expert_order;
    } catch (const UserError& error) {
      return std::string(error.what());
    }
  };
  EXPECT_EQ(order("[3, 0, 2, 1]"), "3 0 2 1");
  EXPECT_EQ(order("[[3, 0, 2, 1], [0, 1, 2, 3]]"), "3 0 2 1; 0 1 2 3");
  EXPECT_EQ(order("[3, 0, 2, 2]"), "run.expert_order: found [3,0,2,2]; wanted each of the numbers 0 to 3 once");
  EXPECT_EQ(order("[0, 1]"), "run.expert_order: found 2 numbers, the model has 4 experts");
  EXPECT_EQ(order("[[0, 1, 2, 3]]"), "run.expert_order: found 1 lists, wanted one for each of the 2 layers with experts, or one for all");
}

TEST(Experts, what_does_not_fit_the_model_is_refused) {
  expect_error(section(R"("autoep_size": 2)"), 2, dense_json(), {"expert_parallel.enabled", "qwen3 model has no experts", "leave"});
  expect_error(section(R"("autoep_size": 8)"), 4, model_json(), {"ep 8", "4 ranks", "1, 2 or 4"});
  expect_error(section(R"("autoep_size": 4)"), 4, model_json(3), {"autoep_size 4 over 3 experts", "at most 3"});
  expect_error(section(R"("expert_tensor_parallel_size": 8)"), 8, model_json(), {"6 inner channels", "at most 6"});
  expect_error(section(R"("autoep_size": 6)") + R"(, "tensor_parallel": {"autotp_size": 4})", 36, model_json(),
               {"no common refinement", "ep of 1"});
  expect_error(section(R"("preset_model": "mixtral")"), 1, model_json(), {"preset_model", "'mixtral'", "qwen3_moe"});
  expect_error(section(R"("preset_model": "qwen3moe")"), 1, model_json(), {"no preset 'qwen3moe'", "did you mean"});
  expect_error(section(R"("top_k": 4)"), 1, model_json(), {"expert_parallel.top_k", "found 4", "has 2"});
  expect_error(section(R"("score_func": "sigmoid")"), 1, model_json(), {"expert_parallel.score_func", "softmax"});
  expect_error(section(R"("route_norm": false)"), 1, model_json(), {"expert_parallel.route_norm", "found false", "has true"});
  expect_error(section(R"("load_balance_coeff": 0.001)"), 1, model_json(), {"load_balance_coeff", "no correction bias"});
  EXPECT_NO_THROW(
      options_of(section(R"("preset_model": "qwen3_moe", "top_k": 2, "score_func": "auto", "route_norm": true, "route_scale": 1.0)"), 1));
}

TEST(Experts, load_is_how_evenly_tokens_are_spread) {
  const float even[] = {5, 5, 5, 5}, one[] = {0, 8, 0, 0}, some[] = {6, 2, 0, 0};
  EXPECT_EQ(expert_load(even, 4).max_over_mean, 1.0);
  EXPECT_NEAR(expert_load(even, 4).entropy, 1.0, 1e-15);
  EXPECT_EQ(expert_load(one, 4).max_over_mean, 4.0);
  EXPECT_EQ(expert_load(one, 4).entropy, 0.0);
  EXPECT_EQ(expert_load(one, 4).dead, 3);
  EXPECT_NEAR(expert_load(some, 4).entropy, (0.75 * std::log(4 / 3.0) + 0.25 * std::log(4.0)) / std::log(4.0), 1e-7);
}
