// What a profile says of a step: work of calls, parts of the model, the tables.
#include "engine/profile.h"

#include <gtest/gtest.h>

#include <map>

#include "base/json.h"
#include "base/text.h"
#include "models/model.h"
#include "ops/op_table.h"
#include "passes/pass.h"

using namespace sheaf;

namespace {

constexpr std::int64_t kRows = 2, kSeq = 5, kVocab = 11, kWidth = 8, kLayers = 3;

Graph step(std::int64_t micro_batches) {
  const Json model = {
      {"model_type", "llama"},        {"vocab_size", kVocab},     {"hidden_size", kWidth},          {"intermediate_size", 12},
      {"num_hidden_layers", kLayers}, {"num_attention_heads", 2}, {"num_key_value_heads", 1},       {"head_dim", 4},
      {"rms_norm_eps", 1e-6},         {"rope_theta", 1e4},        {"max_position_embeddings", kSeq}};
  Graph graph = build_model(model, {.rows = kRows, .seq_len = kSeq}, DType::fp32, Mode::train, "model.config", {});
  Options options;
  options.num_micro_batches = micro_batches;
  return RunPasses{}(std::move(graph), training_passes(), options);
}

const Node& only(const Graph& graph, Segment segment, OpId id) {
  std::vector<const Node*> found;
  for (const Node& node : graph.nodes(segment))
    if (node.op == &op(id)) found.push_back(&node);
  EXPECT_EQ(found.size(), 1u);
  return *found.at(0);
}

TEST(CallWork, counts_what_is_moved) {
  const Executor executor(step(2), {});
  const Graph& graph = executor.graph();
  const double tokens = kRows * kSeq, row = 4 * kWidth, table = kVocab * row;
  // A row of the table for each id; ids are i32.
  EXPECT_EQ(work_of(executor, only(graph, Segment::first, OpId::embedding)).bytes, tokens * (row + 4) + tokens * row);
  // The table gives the extent only; its gradient is written whole.
  EXPECT_EQ(work_of(executor, only(graph, Segment::first, OpId::embedding_grad)).bytes, tokens * (row + 4) + table);
  const std::map<OpId, double> expected = {{OpId::micro_batch, tokens * 4 + 4 + tokens * 4},    // one of the two
                                           {OpId::pick, tokens * (4 + 4 + 4)},                  // an element of each row of logits
                                           {OpId::softmax_grad, tokens * (2 * 4 * kVocab + 4 * 4)},
                                           {OpId::set, 0}};    // added where the sum lies
  for (const auto& [id, bytes] : expected)
    for (const Node& node : graph.nodes(Segment::rest)) {
      if (node.op != &op(id)) continue;
      EXPECT_EQ(work_of(executor, node).bytes, bytes) << node.op->name;
    }
}

TEST(Parts, follow_the_names_of_parameters) {
  const Graph graph = step(2);
  const Parts parts = parts_of(graph);
  for (const Segment s : {Segment::prologue, Segment::epilogue})
    for (const std::string& part : parts[static_cast<std::size_t>(s)]) EXPECT_EQ(part, name(s));
  for (const Segment s : {Segment::first, Segment::rest}) {
    const auto& nodes = graph.nodes(s);
    const auto& of = parts[static_cast<std::size_t>(s)];
    ASSERT_EQ(of.size(), nodes.size());
    std::map<std::string, std::map<std::string_view, int>> count;    // by part and op
    // The first norm of a model has no sum before it, and which products are added to others differs: fused or not, one name.
    const std::map<std::string_view, std::string_view> fused = {
        {"add_rms_norm", "rms_norm"}, {"rms_norm_grad_add", "rms_norm_grad"}, {"einsum_add", "einsum"}};
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      const auto found = fused.find(nodes[n].op->name);
      ++count[of[n]][found == fused.end() ? nodes[n].op->name : found->second];
      // Of several products.
      if (nodes[n].op->name == "einsum_each") count[of[n]]["einsum"] += static_cast<int>(nodes[n].out.size());
      if (nodes[n].op->name == "einsum_sum") count[of[n]]["einsum"] += static_cast<int>(nodes[n].in.size() / 2);
    }
    EXPECT_EQ(count.size(), kLayers + 2);    // embedding, layers, head
    for (int layer = 0; layer < kLayers; ++layer) {
      auto& ops = count[fmt::format("model.layers.{}", layer)];
      EXPECT_EQ(ops["attention"], 1) << layer;
      EXPECT_EQ(ops["attention_grad"], 1) << layer;
      EXPECT_EQ(ops["rms_norm"], ops["rms_norm_grad"]) << layer;
      EXPECT_EQ(ops["einsum"] % 3, 0) << layer;    // a weight's product and its two gradients
      EXPECT_EQ(ops, count["model.layers.0"]) << layer;
    }
    EXPECT_EQ(count["embedding"]["embedding"], 1);
    EXPECT_EQ(count["embedding"]["embedding_grad"], 1);
    EXPECT_EQ(count["head"]["pick"], 1);
    EXPECT_EQ(count["head"]["softmax_grad"], 1);
  }
}

TEST(Profile, folds_layers_and_adds_up) {
  Executor executor(step(3), {});
  executor.set_argument("lr", 1e-3);
  executor.time_calls(true);
  executor.run_step();
  const DeviceRates rates{.flops = {{DType::fp32, 1e12}}, .bytes = 1e9};
  const Profile profile(executor, rates);
  const std::string text = profile.text();
  EXPECT_NE(text.find("model.layers 0-2, each"), std::string::npos) << text;
  EXPECT_NE(text.find("at the 1 GB/s and 1 TFLOP/s in fp32 measured here"), std::string::npos) << text;
  const Json trace = Json::parse(profile.trace(7));
  double total = 0, floor = 0;
  std::int64_t most = 0;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] == "C") most = std::max(most, event["args"]["bytes"].get<std::int64_t>());
    if (event["ph"] != "X" || !event["args"].contains("op")) continue;
    total += event["dur"].get<double>();
    floor += event["args"]["floor_us"].get<double>();
    EXPECT_GE(event["args"]["floor_us"].get<double>(), event["args"]["bytes"].get<double>() / 1e9 * 1e6 - 1e-9);
  }
  EXPECT_NE(text.find(fmt::format("all calls: {:.2f} ms; ", total * 1e-3)), std::string::npos) << total << "\n" << text;
  EXPECT_GT(floor, 0);
  EXPECT_LE(most, executor.memory().arena_bytes);
  EXPECT_GT(most, 0);
}

}    // namespace
