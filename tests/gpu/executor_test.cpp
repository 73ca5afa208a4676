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

// Embedding, one attention block, norm, head, cross-entropy.
Graph step_graph(DType compute) {
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
  const Value z = b.rms_norm(y, b.parameter("norm2", {kWidth}, "ones"), 1e-6);
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

Trained train(DType compute, DeviceKind device, bool deterministic) {
  Executor e(step_graph(compute), {.device = device, .deterministic = deterministic});
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

TEST_F(ExecutorOnGpu, runs_on_another_thread_than_it_was_made_on) {
  Executor e(step_graph(DType::bf16), {.device = DeviceKind::cuda, .deterministic = true});
  EXPECT_NE(e.describe().find("cudnn deterministic"), std::string::npos);
  EXPECT_NE(e.describe().find("fp32 out"), std::string::npos);
  std::thread([&] { e.run_step(); }).join();
}

}    // namespace
