// A whole training step, attention model included, on the GPU against the CPU.
#include "runtime/executor.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <thread>

#include "gpu/gpu.h"
#include "ops/builder.h"
#include "passes/pass.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

constexpr std::int64_t kBatch = 2, kSeq = 128, kVocab = 96, kWidth = 64, kKvHeads = 2, kGroup = 2, kHead = 32, kMicro = 2;
constexpr std::int64_t kExperts = 8, kChoices = 2, kExpertWidth = 40;

// Of every token: 2 of 8 experts, which the input says: rounding does not change them.
Value experts(Builder& b, Value x) {
  const Value choices = b.input("choices", DType::i32, {kBatch, kSeq, kChoices}, "b s c");
  const Value scores = b.softmax(b.einsum("b s k, e k -> b s e", x, b.parameter("router", {kExperts, kWidth}, "normal", 0.1)));
  const Results routing = b.route(choices, {}, kExperts);
  const Value rows = b.dispatch(x, routing[0], kChoices), w = b.dispatch_weights(b.take(scores, choices), routing[0]);
  const Value up = b.parameter("up", {kExperts, 2, kExpertWidth, kWidth}, "normal", 0.1),
              down = b.parameter("down", {kExperts, kWidth, kExpertWidth}, "normal", 0.1);
  const Value pair = b.grouped_einsum(rows, up, routing[1], "e b s k, e g m k -> e b s g m", "same");
  const Value y = b.grouped_einsum(b.gated(pair, "e b s g m -> e b s m", "silu", 0), down, routing[1], "e b s m, e k m -> e b s k", "same");
  return b.combine(b.einsum("e b s k, e b s -> e b s k", y, w), routing[0], kChoices);
}

// Embedding, one attention block, experts if wanted, norm, head, cross-entropy.
Graph step_graph(DType compute, bool with_experts = false) {
  Graph graph;
  Builder b(graph, Segment::first, compute);
  const Value ids = b.input("ids", DType::i32, {kBatch, kSeq}), labels = b.input("labels", DType::i32, {kBatch, kSeq});
  const Value table = b.parameter("embed", {kVocab, kWidth}, "normal", 0.5);
  const Value x = b.embedding(table, ids, -1);
  const Value n = b.rms_norm(x, b.parameter("norm1", {kWidth}, "ones"), 1e-6);
  const Value q = b.einsum("b s k, h r d k -> b s h r d", n, b.parameter("wq", {kKvHeads, kGroup, kHead, kWidth}, "normal", 0.1));
  const Value k = b.einsum("b s k, h d k -> b s h d", n, b.parameter("wk", {kKvHeads, kHead, kWidth}, "normal", 0.1));
  const Value v = b.einsum("b s k, h d k -> b s h d", n, b.parameter("wv", {kKvHeads, kHead, kWidth}, "normal", 0.1));
  const Value o = b.attention(q, k, v, {}, {}, true, 1 / std::sqrt(static_cast<double>(kHead)), 0)[0];
  const Value y = b.add(x, b.einsum("b s h r d, k h r d -> b s k", o, b.parameter("wo", {kWidth, kKvHeads, kGroup, kHead}, "normal", 0.1)));
  Value z = b.rms_norm(y, b.parameter("norm2", {kWidth}, "ones"), 1e-6);
  if (with_experts) z = b.add(z, experts(b, z));
  const Value logits = b.cast(b.einsum("b s k, v k -> b s v", z, table), Text("fp32"));
  const Value m = b.row_max(logits), s = b.sum_exp(logits, m), p = b.pick(logits, labels);
  b.step_sum("loss_sum", b.einsum("b s -> ()", b.nll(m, s, p, labels)));
  Builder prologue(graph, Segment::prologue);
  const Value seed = graph.declare(ValueKind::carried, "seed", {DType::fp32, {}, {}});
  prologue.set(seed, prologue.inverse_count(prologue.count_labels(graph.find("labels"))));
  Options options;
  options.num_micro_batches = kMicro;
  options.weight_decay = 0.1;
  return RunPasses()(std::move(graph), training_passes(), options);
}

void give(Executor& e, Value v, const at::Tensor& host) {
  const at::Tensor t = host.to(scalar_type(e.graph().type(v).dtype)).contiguous();
  e.write(v, t.data_ptr(), static_cast<std::int64_t>(t.nbytes()));
}

struct Trained {
  std::vector<double> losses, norms;
  at::Tensor embed;          // after the last step, fp32
  std::int64_t stray = 0;    // allocations on the GPU in steps 2 and 3
};

Trained train(DType compute, DeviceKind device, bool deterministic, bool with_experts = false) {
  Executor e(step_graph(compute, with_experts), {.device = device, .deterministic = deterministic});
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
  at::Tensor rows = at::zeros({kMicro, kBatch, kSeq}, at::kInt);
  for (std::int64_t i = 0; i < rows.numel(); ++i) rows.data_ptr<int>()[i] = static_cast<int>(rng() % kVocab);
  give(e, e.graph().find("ids"), rows);
  at::Tensor labels = rows.roll({-1}, {2});
  labels.select(2, kSeq - 1).fill_(-100);
  give(e, e.graph().find("labels"), labels);
  if (with_experts) {    // the first of them more often, the last never
    at::Tensor choices = at::zeros({kMicro, kBatch, kSeq, kChoices}, at::kInt);
    for (std::int64_t i = 0; i < choices.numel(); i += kChoices) {
      const auto first = static_cast<int>(rng() % 4), step = static_cast<int>(1 + rng() % 3);
      choices.data_ptr<int>()[i] = first, choices.data_ptr<int>()[i + 1] = first + step;
    }
    give(e, e.graph().find("choices"), choices);
  }
  Trained run;
  for (int step = 1; step <= 3; ++step) {
    const std::pair<const char*, double> arguments[] = {
        {"lr", 1e-3}, {"beta1", 0.9}, {"beta2", 0.95}, {"bias1", 1 - std::pow(0.9, step)}, {"bias2", 1 - std::pow(0.95, step)}};
    for (const auto& [name, value] : arguments) e.set_argument(name, value);
    const std::int64_t before = num_stray_allocations(DeviceKind::cuda);
    e.run_step();
    if (step > 1) run.stray += num_stray_allocations(DeviceKind::cuda) - before;
    EXPECT_EQ(e.metric("commit"), 1);
    run.losses.push_back(e.metric("loss")), run.norms.push_back(e.metric("grad_norm"));
  }
  const Value embed = e.graph().find("embed");
  run.embed = at::zeros(e.graph().type(embed).shape, at::kFloat);
  e.read(embed, run.embed.data_ptr(), static_cast<std::int64_t>(run.embed.nbytes()));
  return run;
}

using ExecutorOnGpu = Gpu;

TEST_F(ExecutorOnGpu, three_steps_in_fp32_equal_the_cpu) {
  const Trained cpu = train(DType::fp32, DeviceKind::cpu, true);
  for (const bool deterministic : {true, false}) {
    const Trained gpu = train(DType::fp32, DeviceKind::cuda, deterministic);
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(gpu.losses[i], cpu.losses[i], 1e-5 * cpu.losses[i]);
      EXPECT_NEAR(gpu.norms[i], cpu.norms[i], 1e-5 * cpu.norms[i]);
    }
    EXPECT_LT(relative_error(gpu.embed, cpu.embed), 1e-4);
    EXPECT_EQ(gpu.stray, 0);
  }
  EXPECT_LT(cpu.losses[2], cpu.losses[0]);
}

TEST_F(ExecutorOnGpu, bf16_is_near_fp32_and_deterministic_runs_are_equal_bit_for_bit) {
  const Trained cpu = train(DType::fp32, DeviceKind::cpu, true), gpu = train(DType::bf16, DeviceKind::cuda, true),
                again = train(DType::bf16, DeviceKind::cuda, true);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(gpu.losses[i], cpu.losses[i], 1e-2 * cpu.losses[i]);
    EXPECT_NEAR(gpu.norms[i], cpu.norms[i], 3e-2 * cpu.norms[i]);
  }
  EXPECT_EQ(gpu.losses, again.losses);
  EXPECT_EQ(gpu.norms, again.norms);
  EXPECT_TRUE(at::equal(gpu.embed, again.embed));
  EXPECT_EQ(gpu.stray, 0);
}

TEST_F(ExecutorOnGpu, experts_in_fp32_equal_the_cpu_and_are_near_it_in_bf16) {
  const Trained cpu = train(DType::fp32, DeviceKind::cpu, true, true), gpu = train(DType::fp32, DeviceKind::cuda, true, true),
                low = train(DType::bf16, DeviceKind::cuda, true, true), again = train(DType::bf16, DeviceKind::cuda, true, true);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(gpu.losses[i], cpu.losses[i], 1e-5 * cpu.losses[i]);
    EXPECT_NEAR(gpu.norms[i], cpu.norms[i], 1e-5 * cpu.norms[i]);
    EXPECT_NEAR(low.losses[i], cpu.losses[i], 1e-2 * cpu.losses[i]);
    EXPECT_NEAR(low.norms[i], cpu.norms[i], 3e-2 * cpu.norms[i]);
  }
  EXPECT_LT(relative_error(gpu.embed, cpu.embed), 1e-4);
  EXPECT_EQ(low.norms, again.norms);
  EXPECT_TRUE(at::equal(low.embed, again.embed));
  EXPECT_EQ(low.stray, 0);
  Executor e(step_graph(DType::bf16, true), {.device = DeviceKind::cuda, .deterministic = true});
  for (const char* row : {"grouped, fp32 of bf16", "rows times numbers", "rows times rows"})
    EXPECT_NE(e.describe().find(row), std::string::npos) << row;
}

TEST_F(ExecutorOnGpu, runs_on_another_thread_than_it_was_made_on) {
  Executor e(step_graph(DType::bf16), {.device = DeviceKind::cuda, .deterministic = true});
  EXPECT_NE(e.describe().find("cudnn deterministic"), std::string::npos);
  EXPECT_NE(e.describe().find("cublasLt"), std::string::npos);
  std::thread([&] { e.run_step(); }).join();
}

}    // namespace
