#include "gpu/small_step.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <chrono>
#include <cmath>

#include "ops/builder.h"
#include "passes/pass.h"

namespace sheaf::testing {
namespace {

constexpr std::int64_t kBatch = 2, kSeq = 128, kVocab = 96, kWidth = 64, kKvHeads = 2, kGroup = 2, kHead = 32;
constexpr std::int64_t kExperts = 160, kChoices = 2, kExpertWidth = 40;
constexpr std::int64_t kDocuments = 3;    // and a rest

// Of every token: 2 of 160 experts, which the input says: rounding does not change them.
Value experts(Builder& b, Value x, bool biased) {
  const Value choices = b.input("choices", DType::i32, {kBatch, kSeq, kChoices}, "b s c");
  const Value scores = b.softmax(b.einsum("b s k, e k -> b s e", x, b.parameter("router", {kExperts, kWidth}, "normal", 0.1)));
  const Results routing = b.route(choices, {}, kExperts);
  const Value rows = b.dispatch(x, routing[0], kChoices), w = b.dispatch_weights(b.take(scores, choices), routing[0]);
  const Value up = b.parameter("up", {kExperts, 2, kExpertWidth, kWidth}, "normal", 0.1),
              down = b.parameter("down", {kExperts, kWidth, kExpertWidth}, "normal", 0.1);
  const auto with_bias = [&](Value v, const char* name, const Shape& shape) {
    return biased ? Value(b.add_expert_bias(v, b.parameter(name, shape, "normal", 0.1), routing[1])) : v;
  };
  const Value pair =
      with_bias(b.grouped_einsum(rows, up, routing[1], "e b s k, e g m k -> e b s g m", "same"), "up.bias", {kExperts, 2, kExpertWidth});
  const Value y =
      with_bias(b.grouped_einsum(b.gated(pair, "e b s g m -> e b s m", "silu", 0), down, routing[1], "e b s m, e k m -> e b s k", "same"),
                "down.bias", {kExperts, kWidth});
  return b.combine(b.einsum("e b s k, e b s -> e b s k", y, w), routing[0], kChoices);
}

void give(Executor& e, Value v, const at::Tensor& host) {
  const at::Tensor t = host.to(scalar_type(e.graph().type(v).dtype)).contiguous();
  e.write(v, t.data_ptr(), static_cast<std::int64_t>(t.nbytes()));
}

}    // namespace

Graph step_graph(const SmallModel& model) {
  Graph graph;
  Builder b(graph, Segment::first, model.compute);
  const Value ids = b.input("ids", DType::i32, {kBatch, kSeq}), labels = b.input("labels", DType::i32, {kBatch, kSeq});
  const Value table = b.parameter("embed", {kVocab, kWidth}, "normal", 0.5);
  const Value x = b.embedding(table, ids, -1);
  const Value n = b.rms_norm(x, b.parameter("norm1", {kWidth}, "ones"), 1e-6);
  Value q = b.einsum("b s k, h r d k -> b s h r d", n, b.parameter("wq", {kKvHeads, kGroup, kHead, kWidth}, "normal", 0.1));
  Value k = b.einsum("b s k, h d k -> b s h d", n, b.parameter("wk", {kKvHeads, kHead, kWidth}, "normal", 0.1));
  Value v = b.einsum("b s k, h d k -> b s h d", n, b.parameter("wv", {kKvHeads, kHead, kWidth}, "normal", 0.1)), ends;
  if (model.documents) {
    const Value positions = b.input("positions", DType::i32, {kBatch, kSeq});
    std::vector<double> frequencies;
    for (std::int64_t i = 0; i < kHead / 2; ++i) frequencies.push_back(std::pow(100.0, -2.0 * static_cast<double>(i) / kHead));
    const Results angles = b.rope_angles(positions, b.constant("frequencies", DType::fp32, {kHead / 2}, frequencies), 1.0);
    const auto biased = [&](Value& x, const char* name, const Shape& shape) { x = b.add(x, b.parameter(name, shape, "normal", 0.1)); };
    biased(q, "bq", {kKvHeads, kGroup, kHead}), biased(k, "bk", {kKvHeads, kHead}), biased(v, "bv", {kKvHeads, kHead});
    q = b.rotate(q, angles[0], angles[1], false, false), k = b.rotate(k, angles[0], angles[1], false, false);
    ends = b.input("ends", DType::i32, {kBatch, kDocuments}, "b c");
  }
  const Value o = b.attention(q, k, v, ends, {}, true, 1 / std::sqrt(static_cast<double>(kHead)), 0)[0];
  const Value y = b.add(x, b.einsum("b s h r d, k h r d -> b s k", o, b.parameter("wo", {kWidth, kKvHeads, kGroup, kHead}, "normal", 0.1)));
  Value z = b.rms_norm(y, b.parameter("norm2", {kWidth}, "ones"), 1e-6);
  if (model.experts) z = b.add(z, experts(b, z, model.documents));
  const Value logits = b.cast(b.einsum("b s k, v k -> b s v", z, table), Text("fp32"));
  const Value m = b.row_max(logits), s = b.sum_exp(logits, m), p = b.pick(logits, labels);
  b.step_sum("loss_sum", b.einsum("b s -> ()", b.nll(m, s, p, labels)));
  Builder prologue(graph, Segment::prologue);
  const Value seed = graph.declare(ValueKind::carried, "seed", {DType::fp32, {}, {}});
  prologue.set(seed, prologue.inverse_count(prologue.count_labels(graph.find("labels"))));
  Options options;
  options.num_micro_batches = model.micro_batches;
  options.weight_decay = 0.1;
  options.bf16_gradients = model.bf16_gradients;
  return RunPasses()(std::move(graph), training_passes(), options);
}

Trained train(const TrainSmall& t) {
  Executor e(step_graph(t.model), {.device = t.device, .deterministic = t.deterministic, .cuda_graphs = t.cuda_graphs});
  std::uint64_t seed = 1;
  for (const Value v : e.graph().all(ValueKind::state)) {
    const ValueInfo& info = e.graph()[v];
    if (!info.attrs.has("trainable")) continue;
    const at::Tensor w = info.attrs.text("init") == "ones" ? at::ones(info.type.shape, at::kFloat)
                                                           : normal(info.type.shape, at::kFloat, seed++).mul(info.attrs.number("std"));
    give(e, v, w);
    if (const Value derived = e.graph().find(info.name + ".c")) give(e, derived, w);
  }
  std::mt19937_64 rng(5);
  at::Tensor rows = at::zeros({t.model.micro_batches, kBatch, kSeq}, at::kInt);
  for (std::int64_t i = 0; i < rows.numel(); ++i) rows.data_ptr<int>()[i] = static_cast<int>(rng() % kVocab);
  give(e, e.graph().find("ids"), rows);
  at::Tensor labels = rows.roll({-1}, {2});
  labels.select(2, kSeq - 1).fill_(-100);
  give(e, e.graph().find("labels"), labels);
  if (t.model.experts) {    // the first of them more often, the last never
    at::Tensor choices = at::zeros({t.model.micro_batches, kBatch, kSeq, kChoices}, at::kInt);
    for (std::int64_t i = 0; i < choices.numel(); i += kChoices) {
      const auto first = static_cast<int>(rng() % 4), step = static_cast<int>(1 + rng() % 3);
      choices.data_ptr<int>()[i] = first, choices.data_ptr<int>()[i + 1] = first + step;
    }
    give(e, e.graph().find("choices"), choices);
  }
  if (t.model.documents) {
    at::Tensor positions = at::zeros(rows.sizes(), at::kInt), ends = at::zeros({t.model.micro_batches, kBatch, kDocuments}, at::kInt);
    for (std::int64_t row = 0; row < t.model.micro_batches * kBatch; ++row) {
      int* const end = ends.data_ptr<int>() + row * kDocuments;
      end[0] = static_cast<int>(1 + rng() % 50), end[1] = end[0] + static_cast<int>(rng() % 30), end[2] = 100;
      for (int i = 0, begin = 0, document = 0; i < kSeq; ++i) {
        while (document < kDocuments && i >= end[document]) begin = end[document++];
        positions.data_ptr<int>()[row * kSeq + i] = i - begin;
      }
    }
    give(e, e.graph().find("positions"), positions), give(e, e.graph().find("ends"), ends);
  }
  Trained run;
  for (int step = 1; step <= t.steps; ++step) {
    const std::pair<const char*, double> arguments[] = {
        {"lr", 1e-3 / step}, {"beta1", 0.9}, {"beta2", 0.95}, {"bias1", 1 - std::pow(0.9, step)}, {"bias2", 1 - std::pow(0.95, step)}};
    for (const auto& [name, value] : arguments) e.set_argument(name, value);
    e.time_calls(step == t.timed_step);
    const std::int64_t before = num_stray_allocations(DeviceKind::cuda);
    const auto begin = std::chrono::steady_clock::now();
    e.run_step();
    run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (step > 1) run.stray += num_stray_allocations(DeviceKind::cuda) - before;
    EXPECT_EQ(e.metric("commit"), 1);
    run.losses.push_back(e.metric("loss")), run.norms.push_back(e.metric("grad_norm"));
  }
  run.graphs = e.graphs();
  for (const Value v : e.graph().all(ValueKind::state)) {
    at::Tensor& state = run.states[e.graph()[v].name];
    state = at::zeros(e.graph().type(v).shape, at::TensorOptions().dtype(scalar_type(e.graph().type(v).dtype)));
    e.read(v, state.data_ptr(), static_cast<std::int64_t>(state.nbytes()));
  }
  return run;
}

void expect_same_bits(const Trained& a, const Trained& b) {
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_EQ(a.norms, b.norms);
  EXPECT_EQ(a.states.size(), b.states.size());
  for (const auto& [name, state] : a.states) EXPECT_TRUE(at::equal(state, b.states.at(name))) << name;
}

}    // namespace sheaf::testing
