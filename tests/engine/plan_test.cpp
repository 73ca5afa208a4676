#include "engine/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "engine/slow_calls.h"
#include "engine/step_graph.h"
#include "ops/op_table.h"
#include "runtime/scratch_plan.h"

namespace sheaf {
namespace {

RunConfig run_of(const std::string& model, std::int64_t ranks, const std::vector<std::string>& overrides = {}) {
  return parse_config(R"({"model": {"config": )" + model + R"(}, "data": {"train": "absent.txt", "seq_len": 256, "tokenizer": "bytes"},
                          "run": {"steps": 1, "output": "absent", "device": "cpu"}, "train_micro_batch_size_per_gpu": 2})",
                      "run.json", overrides, ranks)
      .config;
}

constexpr const char* kMiddle =
    R"({"model_type": "qwen3", "vocab_size": 5000, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 1,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "eos_token_id": 0})";

// What is extrapolated from small calls is near what the calls take. In bf16 the CPU's matrix products pack their operands in blocks whose
// size follows no law.
TEST(Plan, scratch_from_smaller_calls) {
  for (const bool bf16 : {false, true}) {
    const RunConfig run = run_of(kMiddle, 1, {bf16 ? "bf16.enabled=true" : "bf16.enabled=false"});
    const Graph graph = training_step(run, run.model.config, parse_model_config(run.model.config), {}).graph;
    const ScratchPlan measured = plan_scratch(graph, {}), estimated = plan_scratch(graph, {.extrapolate = true});
    EXPECT_TRUE(measured.measured);
    EXPECT_FALSE(estimated.measured);
    for (const Segment s : kSegments)
      for (std::size_t n = 0; n < graph.nodes(s).size() && !bf16; ++n) {
        const auto exact = static_cast<double>(measured.bytes[static_cast<std::size_t>(s)][n]);
        EXPECT_NEAR(exact, static_cast<double>(estimated.bytes[static_cast<std::size_t>(s)][n]), 0.3 * exact + 65536)
            << graph.nodes(s)[n].op->name << print(graph.nodes(s)[n].attrs);
      }
    const auto exact = static_cast<double>(plan_memory(graph, measured.bytes).arena_bytes);
    EXPECT_NEAR(exact, static_cast<double>(plan_memory(graph, estimated.bytes).arena_bytes), (bf16 ? 0.1 : 0.02) * exact);
  }
}

std::int64_t num_split(const std::vector<std::string>& overrides, std::int64_t ranks = 1) {
  const RunConfig run = run_of(kMiddle, ranks, overrides);
  const Graph graph = training_step(run, run.model.config, parse_model_config(run.model.config), {}).graph;
  const Values states = graph.all(ValueKind::state);
  return std::count_if(states.begin(), states.end(), [&](Value v) { return graph[v].attrs.has("high"); });
}

TEST(MasterEncoding, splits_where_master_and_copy_lie_alike) {
  const std::int64_t all = num_split({"bf16.enabled=true"});
  EXPECT_GT(all, 0);
  EXPECT_EQ(num_split({"bf16.enabled=true", "run.master_encoding=split"}), all);
  EXPECT_EQ(num_split({"bf16.enabled=true", "run.master_encoding=fp32"}), 0);
  EXPECT_EQ(num_split({"bf16.enabled=false"}), 0);
  EXPECT_EQ(num_split({"bf16.enabled=true"}, 2), all);
  EXPECT_EQ(num_split({"bf16.enabled=true", "zero_optimization.stage=1"}, 2), 0);
  const std::int64_t cut =
      num_split({"bf16.enabled=true", "zero_optimization.stage=3", "zero_optimization.stage3_param_persistence_threshold=1000"}, 2);
  EXPECT_TRUE(0 < cut && cut < all) << cut << " of " << all;    // norms stay whole
}

TEST(MasterEncoding, split_where_nothing_can_be_is_an_error) {
  EXPECT_THROW(num_split({"bf16.enabled=false", "run.master_encoding=split"}), UserError);
  EXPECT_THROW(num_split({"bf16.enabled=true", "run.master_encoding=split", "zero_optimization.stage=2"}, 2), UserError);
}

// Of two layers and the embedding: five sums of the residual stream.
RunPlan plan_of_two_layers(std::int64_t ranks, const std::vector<std::string>& overrides) {
  const std::string model =
      R"({"model_type": "qwen3", "vocab_size": 500, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 2,
                                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "eos_token_id": 0})";
  return plan_run(run_of(model, ranks, overrides), 1.0);
}
RunPlan plan_within(const std::string& limit) { return plan_of_two_layers(1, {"run.memory_limit=" + limit}); }
double gib(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

TEST(MemoryLimit, computes_again_no_more_than_it_takes) {
  const RunPlan all = plan_within("null"), roomy = plan_within("10");
  EXPECT_EQ(all.chosen, "");
  EXPECT_NE(roomy.chosen.find("nothing is computed again"), std::string::npos) << roomy.chosen;
  EXPECT_EQ(roomy.memory.total(), all.memory.total());
  std::int64_t last = all.memory.total();
  std::set<std::string> choices;
  for (const double share : {0.999, 0.95, 0.88, 0.8}) {
    const double limit = share * gib(all.memory.total());
    RunPlan plan;
    try {
      plan = plan_within(fmt::format("{}", limit));
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find("even where all is computed again"), std::string::npos) << error.what();
      break;
    }
    EXPECT_LE(gib(plan.memory.total()), limit);
    EXPECT_LE(plan.memory.total(), last);
    last = plan.memory.total();
    choices.insert(plan.chosen.substr(plan.chosen.find(':')));
  }
  EXPECT_GE(choices.size(), 3U);
}

// Over tp each sum of the residual stream is made of parts and then moved: two nodes, one block.
TEST(MemoryLimit, on_a_mesh_is_met_by_what_computes_all_again) {
  const auto plan_with = [](const std::string& more) { return plan_of_two_layers(2, {"tensor_parallel.autotp_size=2", more}); };
  const RunPlan least = plan_with("run.recompute=block");
  EXPECT_LT(least.memory.total(), plan_with("run.recompute=none").memory.total());
  EXPECT_LE(plan_with(fmt::format("run.memory_limit={}", gib(least.memory.total()))).memory.total(), least.memory.total());
}

TEST(MemoryLimit, that_nothing_meets_is_an_error) {
  EXPECT_THROW(plan_within("0.001"), UserError);
  EXPECT_THROW(run_of(kMiddle, 1, {"run.memory_limit=0"}), UserError);
}

// Whether a device has a kernel, the build knows: this test is about what is said where there is none, as for attention in fp32.
TEST(SlowCalls, are_named_once_each_with_their_number) {
  const RunConfig run = run_of(kMiddle, 1);
  const Graph graph = training_step(run, run.model.config, parse_model_config(run.model.config), {}).graph;
  const std::vector<std::string> lines = slow_calls(graph, 0, DeviceKind::cuda, true);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0].find("WARNING: 1 calls of attention of fp32[2, 256, 2, 4, 64]"), 0U) << lines[0];
  EXPECT_EQ(lines[1].find("WARNING: 1 calls of attention_grad of fp32"), 0U) << lines[1];
  EXPECT_TRUE(slow_calls(graph, 0, DeviceKind::cpu, true).empty());
}

}    // namespace
}    // namespace sheaf
