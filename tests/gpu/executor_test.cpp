// A whole training step, attention model included, on the GPU against the CPU.
#include "runtime/executor.h"

#include <chrono>
#include <thread>

#include "gpu/small_step.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

using ExecutorOnGpu = Gpu;

TEST_F(ExecutorOnGpu, three_steps_in_fp32_equal_the_cpu) {
  const Trained cpu = train({.model = {.compute = DType::fp32}, .device = DeviceKind::cpu});
  for (const bool deterministic : {true, false}) {
    const Trained gpu = train({.model = {.compute = DType::fp32}, .deterministic = deterministic});
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(gpu.losses[i], cpu.losses[i], 1e-5 * cpu.losses[i]);
      EXPECT_NEAR(gpu.norms[i], cpu.norms[i], 1e-5 * cpu.norms[i]);
    }
    EXPECT_LT(relative_error(gpu.states.at("embed"), cpu.states.at("embed")), 1e-4);
    EXPECT_EQ(gpu.stray, 0);
  }
  EXPECT_LT(cpu.losses[2], cpu.losses[0]);
}

TEST_F(ExecutorOnGpu, bf16_is_near_fp32_and_deterministic_runs_are_equal_bit_for_bit) {
  const Trained cpu = train({.model = {.compute = DType::fp32}, .device = DeviceKind::cpu}), gpu = train({}), again = train({});
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(gpu.losses[i], cpu.losses[i], 1e-2 * cpu.losses[i]);
    EXPECT_NEAR(gpu.norms[i], cpu.norms[i], 3e-2 * cpu.norms[i]);
  }
  expect_same_bits(gpu, again);
  EXPECT_EQ(gpu.stray, 0);
}

// In fp32 the CPU's numbers, in bf16 near them and the same bits again. The run in bf16.
Trained expect_as_on_the_cpu(SmallModel model) {
  model.compute = DType::fp32;
  const Trained cpu = train({.model = model, .device = DeviceKind::cpu}), gpu = train({.model = model});
  model.compute = DType::bf16;
  const Trained low = train({.model = model}), again = train({.model = model});
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(gpu.losses[i], cpu.losses[i], 1e-5 * cpu.losses[i]);
    EXPECT_NEAR(gpu.norms[i], cpu.norms[i], 1e-5 * cpu.norms[i]);
    EXPECT_NEAR(low.losses[i], cpu.losses[i], 1e-2 * cpu.losses[i]);
    EXPECT_NEAR(low.norms[i], cpu.norms[i], 3e-2 * cpu.norms[i]);
  }
  EXPECT_LT(relative_error(gpu.states.at("embed"), cpu.states.at("embed")), 1e-4);
  expect_same_bits(low, again);
  return low;
}

TEST_F(ExecutorOnGpu, experts_in_fp32_equal_the_cpu_and_are_near_it_in_bf16) {
  const SmallModel model{.experts = true};
  EXPECT_EQ(expect_as_on_the_cpu(model).stray, 0);
  Executor e(step_graph(model), {.device = DeviceKind::cuda, .deterministic = true});
  for (const char* row : {"grouped, fp32 of bf16", "rows times numbers", "rows times rows"})
    EXPECT_NE(e.describe().find(row), std::string::npos) << row;
}

// Biases of q, k, v and of experts, rotations by position, rows of several documents.
TEST_F(ExecutorOnGpu, documents_and_biases_in_fp32_equal_the_cpu_and_are_near_it_in_bf16) {
  const SmallModel model{.experts = true, .documents = true};
  expect_as_on_the_cpu(model);
  Executor e(step_graph(model), {.device = DeviceKind::cuda, .deterministic = true});
  for (const char* op_name : {"biased_rotate", "biased_gated ", "biased_gated_grad", "biased_weighted ", "biased_weighted_grad", "cudnn"})
    EXPECT_NE(e.describe().find(op_name), std::string::npos) << op_name;
}

// Rounded once, by up to 2^-9 each and at random: of a norm, the root of a sum of many squares, less is left.
TEST_F(ExecutorOnGpu, gradients_in_bf16_are_those_of_fp32_rounded) {
  const Trained wide = train({.model = {.micro_batches = 1}}), narrow = train({.model = {.micro_batches = 1, .bf16_gradients = true}});
  EXPECT_EQ(wide.losses[0], narrow.losses[0]);    // of the same weights
  EXPECT_NE(wide.norms[0], narrow.norms[0]);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(narrow.losses[i], wide.losses[i], 1e-2 * wide.losses[i]);
    EXPECT_NEAR(narrow.norms[i], wide.norms[i], (i == 0 ? 1.0 / 512 : 3e-2) * wide.norms[i]);
  }
}

// By events on the stream, which nothing waits for in between.
TEST_F(ExecutorOnGpu, timed_calls_follow_each_other_inside_the_step) {
  Executor e(step_graph({}), {.device = DeviceKind::cuda});
  e.run_step();    // libraries make what they make once
  e.time_calls(true);
  for (int i = 0; i < 2; ++i) {    // the second time events are used again
    const auto begin = std::chrono::steady_clock::now();
    e.run_step();
    const double step = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    double end = 0, total = 0;
    for (const CallTime& call : e.call_times()) {
      EXPECT_EQ(call.track, Track::main);
      EXPECT_GE(call.begin, end - 2e-6) << call.kernel;    // events resolve half a microsecond, and these are differences of two
      EXPECT_GE(call.seconds, 0) << call.kernel;
      end = call.begin + call.seconds, total += call.seconds;
    }
    EXPECT_GT(e.call_times().size(), 50u);
    EXPECT_LT(end, step);
    EXPECT_GT(total, 0.2 * end);    // the host is between the calls of this tiny model
  }
}

TEST_F(ExecutorOnGpu, runs_on_another_thread_than_it_was_made_on) {
  Executor e(step_graph({}), {.device = DeviceKind::cuda, .deterministic = true});
  EXPECT_NE(e.describe().find("cudnn deterministic"), std::string::npos);
  EXPECT_NE(e.describe().find("cublasLt"), std::string::npos);
  std::thread([&] { e.run_step(); }).join();
}

}    // namespace
