// The planned step against the interpreter: the same kernels, so the same bits, although the plan shares storage wherever it can.
#include "runtime/executor.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/error.h"
#include "base/text.h"
#include "ops/aten.h"
#include "ops/builder.h"
#include "passes/pass.h"
#include "runtime/interpret.h"
#include "runtime/scratch.h"

using namespace sheaf;

namespace {

constexpr std::int64_t kRows = 5, kWidth = 6, kVocab = 11;

// A residual, a norm, a bias, a tied head and cross-entropy: every kind of sharing occurs. clip = 0: then the norm, whose sum flatten
// reorders, does not touch the weights.
Graph small_step(std::int64_t m, DType compute, bool flat = true) {
  Graph graph;
  Builder b(graph, Segment::first, compute);
  const Value ids = b.input("ids", DType::i32, {kRows}), labels = b.input("labels", DType::i32, {kRows});
  const Value e = b.parameter("e", {kVocab, kWidth}, "normal", 0.5), w1 = b.parameter("w1", {9, kWidth}, "normal", 0.5),
              w2 = b.parameter("w2", {kWidth, 9}, "normal", 0.5), n = b.parameter("n", {kWidth}, "ones"),
              bias = b.parameter("bias", {9}, "zeros");
  Value x = b.embedding(e, ids, -1);
  const Value h = b.silu(b.add(b.einsum("t k, n k -> t n", b.rms_norm(x, n, 1e-6), w1), bias));
  x = b.add(x, b.einsum("t n, k n -> t k", h, w2));
  const Value logits = b.cast(b.einsum("t k, v k -> t v", x, e), Text("fp32"));
  const Value top = b.row_max(logits), sum = b.sum_exp(logits, top), nll = b.nll(top, sum, b.pick(logits, labels), labels);
  b.step_sum("loss_sum", b.einsum("t -> ()", nll));
  b.in(Segment::prologue);
  const Value seed = graph.declare(ValueKind::carried, "seed", {DType::fp32, {}, {}});
  b.set(seed, b.inverse_count(b.count_labels(graph.find("labels"))));
  Options options;
  options.weight_decay = 0.1, options.clip = 0, options.num_micro_batches = m;
  std::vector<Pass> passes = training_passes();
  if (!flat) std::erase_if(passes, [](const Pass& pass) { return pass.name == "flatten"; });
  return RunPasses{}(std::move(graph), passes, options);
}

// Initial values of all states, by name; the rows and step arguments of every step.
std::map<std::string, at::Tensor> initial_states(const Graph& graph) {
  std::mt19937_64 rng(1);
  std::normal_distribution<float> normal(0, 0.4f);
  std::map<std::string, at::Tensor> states;
  for (const Value v : graph.all(ValueKind::state)) {
    const ValueInfo& info = graph[v];
    at::Tensor t = at::zeros(info.type.shape, scalar_type(info.type.dtype));
    if (info.attrs.has("trainable"))
      for (std::int64_t i = 0; i < t.numel(); ++i) t.data_ptr<float>()[i] = info.name == "n" ? 1.0f : normal(rng);
    states[info.name] = t;
  }
  for (auto& [name, t] : states)
    if (name.ends_with(".c")) t.copy_(states.at(name.substr(0, name.size() - 2)));
  return states;
}

struct StepData {
  at::Tensor ids, labels;
  std::map<std::string, double> arguments;
};
StepData step_data(std::int64_t m, int step) {
  StepData data{at::zeros({m, kRows}, at::kInt), at::zeros({m, kRows}, at::kInt), {}};
  for (std::int64_t i = 0; i < m * kRows; ++i) {
    data.ids.data_ptr<int>()[i] = static_cast<int>(i % kVocab);
    data.labels.data_ptr<int>()[i] = i % 4 == 3 ? -100 : static_cast<int>((i % kVocab * 3 + 1) % kVocab);
  }
  data.arguments = {
      {"lr", 0.05}, {"beta1", 0.9}, {"beta2", 0.99}, {"bias1", 1 - std::pow(0.9, step + 1)}, {"bias2", 1 - std::pow(0.99, step + 1)}};
  return data;
}

void run_planned(Executor& executor, const StepData& data) {
  executor.write(executor.graph().find("ids"), data.ids.data_ptr(), data.ids.numel() * 4);
  executor.write(executor.graph().find("labels"), data.labels.data_ptr(), data.labels.numel() * 4);
  for (const auto& [name, value] : data.arguments) executor.set_argument(name, value);
  executor.run_step();
}

class Steps : public ::testing::TestWithParam<std::tuple<std::int64_t, DType>> {};

}    // namespace

TEST_P(Steps, plan_and_interpreter_give_the_same_bits) {
  const auto [m, compute] = GetParam();
  Executor executor(small_step(m, compute), {.poison = true});
  const Graph plain = small_step(m, compute, false);
  Interpreter interpreter(plain, Numbers::planned);
  for (const auto& [name, t] : initial_states(plain)) {
    interpreter.give(plain.find(name), t.clone());
    executor.write(executor.graph().find(name), t.data_ptr(), static_cast<std::int64_t>(t.nbytes()));
  }
  for (const Value v : plain.all(ValueKind::carried)) interpreter.give(v, at::zeros(plain.type(v).shape, scalar_type(plain.type(v).dtype)));
  for (int step = 0; step < 3; ++step) {
    const StepData data = step_data(m, step);
    run_planned(executor, data);
    interpreter.give(plain.find("ids"), data.ids);
    interpreter.give(plain.find("labels"), data.labels);
    for (const auto& [name, value] : data.arguments) interpreter.give(plain.find("step." + name), at::zeros({}).fill_(value));
    interpreter.give(plain.find("step.micro_batch"), at::zeros({}, at::kInt));
    interpreter.run(Segment::prologue);
    interpreter.run(Segment::first);
    for (std::int64_t i = 1; i < m; ++i) {
      interpreter.give(plain.find("step.micro_batch"), at::zeros({}, at::kInt).fill_(i));
      interpreter.run(Segment::rest);
    }
    interpreter.run(Segment::epilogue);
    for (const Value v : plain.all(ValueKind::state)) {
      const std::string& name = plain[v].name;
      if (name == "metric.grad_norm") continue;    // its sum is in another order
      at::Tensor planned = at::empty_like(interpreter[v]);
      if (plain[v].attrs.has("metric"))
        planned.fill_(executor.metric(name.substr(7)));
      else
        executor.read(executor.graph().find(name), planned.data_ptr(), static_cast<std::int64_t>(planned.nbytes()));
      ASSERT_TRUE(planned.equal(interpreter[v]))
          << name << " after step " << step << ", at most " << planned.sub(interpreter[v]).abs().max().item<double>();
    }
  }
}

TEST_P(Steps, learn_and_allocate_nothing_after_the_first) {
  const auto [m, compute] = GetParam();
  Executor executor(small_step(m, compute), {.poison = true});
  for (const auto& [name, t] : initial_states(executor.graph()))
    executor.write(executor.graph().find(name), t.data_ptr(), static_cast<std::int64_t>(t.nbytes()));
  std::int64_t stray = 0;
  double first = 0;
  for (int step = 0; step < 40; ++step) {
    const std::int64_t before = num_stray_allocations();
    run_planned(executor, step_data(m, step));
    if (step == 0)
      first = executor.metric("loss");
    else
      stray += num_stray_allocations() - before - 2;    // this test's own ids and labels
    ASSERT_EQ(executor.metric("commit"), 1);
  }
  EXPECT_EQ(stray, 0);
  EXPECT_LT(executor.metric("loss"), 0.5 * first);
  EXPECT_EQ(executor.planned_bytes(), executor.peak_bytes());
}

TEST_P(Steps, a_step_that_is_not_finite_changes_no_weight_and_no_moment) {
  const auto [m, compute] = GetParam();
  Executor executor(small_step(m, compute), {.poison = true});
  auto states = initial_states(executor.graph());
  states.at("w1").data_ptr<float>()[3] = std::numeric_limits<float>::infinity();
  if (states.contains("w1.c")) states.at("w1.c").copy_(states.at("w1"));
  for (const auto& [name, t] : states) executor.write(executor.graph().find(name), t.data_ptr(), static_cast<std::int64_t>(t.nbytes()));
  run_planned(executor, step_data(m, 0));
  EXPECT_EQ(executor.metric("commit"), 0);
  for (const auto& [name, t] : states) {
    if (name.starts_with("metric.")) continue;
    at::Tensor now = at::empty_like(t);
    executor.read(executor.graph().find(name), now.data_ptr(), static_cast<std::int64_t>(now.nbytes()));
    EXPECT_TRUE(now.equal(t)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Executor, Steps, ::testing::Combine(::testing::Values(1, 3), ::testing::Values(DType::fp32, DType::bf16)),
                         [](const auto& info) {
                           return fmt::format("{}_micro_batches_{}", std::get<0>(info.param), name(std::get<1>(info.param)));
                         });

TEST(Memory, accumulators_exist_only_with_several_micro_batches) {
  EXPECT_EQ(Executor(small_step(1, DType::fp32), {}).memory().held.gradients, 4);    // @seed
  EXPECT_EQ(Executor(small_step(2, DType::fp32), {}).memory().held.gradients,
            4 * (1 + 1 + 2 * 9 * kWidth + kVocab * kWidth + kWidth + 9));    // and @loss_sum
}

TEST(Memory, an_overlap_of_live_values_is_caught) {
  const Graph graph = small_step(1, DType::fp32);
  MemoryPlan plan = plan_memory(graph, {});
  verify_memory(graph, plan);
  // Move each value of the arena onto another that is live with it: every such plan must be refused.
  int moved = 0;
  for (const Node& node : graph.nodes(Segment::first)) {
    if (node.in.size() < 2 || node.out.empty() || node.op->in_place || !node.in[0] || graph[node.in[0]].kind != ValueKind::result) continue;
    const auto out = static_cast<std::size_t>(node.out[0].id), in = static_cast<std::size_t>(node.in[0].id);
    if (plan.places[out].block != Block::arena || plan.places[in].block != Block::arena) continue;
    MemoryPlan wrong = plan;
    wrong.places[out].offset = plan.places[in].offset;
    EXPECT_THROW(verify_memory(graph, wrong), InternalError) << node.op->name;
    ++moved;
  }
  EXPECT_GT(moved, 3);
}

TEST(Scratch, first_fit_reuses_what_was_freed) {
  SlotHeap heap(64);
  const auto a = heap.allocate(100), b = heap.allocate(100);
  heap.free(a);
  EXPECT_EQ(heap.allocate(64), a);
  EXPECT_EQ(heap.allocate(128), b + 128);
  EXPECT_EQ(heap.peak(), b + 256);
}

TEST(Scratch, a_kernel_that_goes_past_its_slot_is_an_error_of_ours) {
  install_scratch_allocators();
  std::vector<char> slot(256);
  const ScratchScope scope(DeviceKind::cpu, slot.data(), 256);
  EXPECT_THROW(at::empty({100}, at::kFloat), InternalError);
}
