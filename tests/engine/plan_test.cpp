#include "engine/plan.h"

#include <gtest/gtest.h>

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
    const Graph graph = training_step(run, run.model.config, parse_model_config(run.model.config), {});
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

}    // namespace
}    // namespace sheaf
