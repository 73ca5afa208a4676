// Captured graphs: a replay gives the same bits as the calls do one by one.
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "gpu/small_step.h"
#include "ops/builder.h"
#include "ops/op_cases.h"
#include "runtime/graph_capture.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

using Graphs = Gpu;

// Steps 3 to 6 are replays; that losses and states of all six are the same shows that each read its own arguments and micro-batches.
TEST_F(Graphs, replays_equal_calls_bit_for_bit) {
  for (const bool experts : {false, true})
    for (const std::int64_t micro_batches : {1, 3}) {
      SCOPED_TRACE(fmt::format("experts {}, micro-batches {}", experts, micro_batches));
      TrainSmall options{.model = {.experts = experts, .micro_batches = micro_batches}, .steps = 6};
      const Trained calls = train(options);
      options.cuda_graphs = true;
      const Trained replays = train(options);
      expect_same_bits(calls, replays);
      EXPECT_NE(replays.losses[4], replays.losses[5]);
      EXPECT_EQ(replays.stray, 0);
      EXPECT_EQ(calls.graphs, "");
      EXPECT_EQ(replays.graphs,
                micro_batches == 1 ? "CUDA graphs: prologue, first, epilogue" : "CUDA graphs: prologue, first, rest, epilogue");
      if (std::getenv("SHEAF_TIMES"))
        std::printf("  a step: %.0f us by calls, %.0f us by graphs\n", calls.seconds * 1e6, replays.seconds * 1e6);
    }
}

TEST_F(Graphs, a_step_whose_calls_are_timed_fits_in_between) {
  const Trained calls = train({.steps = 6}), replays = train({.steps = 6, .cuda_graphs = true, .timed_step = 5});
  expect_same_bits(calls, replays);
}

// Attention in fp32 with documents reads on the host where they end.
TEST_F(Graphs, what_reads_on_the_host_is_named) {
  const auto make = [](std::optional<bool> cuda_graphs) {
    Graph graph;
    Builder b(graph, Segment::first, DType::fp32);
    const Value q = b.input("q", DType::fp32, {1, 8, 1, 1, 16}, "b s h r d"), k = b.input("k", DType::fp32, {1, 8, 1, 16}, "b s h d");
    b.attention(q, k, k, b.input("ends", DType::i32, {1, 2}, "b c"), {}, true, 0.25, 0);
    return Executor(std::move(graph), {.device = DeviceKind::cuda, .cuda_graphs = cuda_graphs}).graphs();
  };
  EXPECT_EQ(make(false), "");
  EXPECT_NE(make(std::nullopt).find("none; not for first (node "), std::string::npos) << make(std::nullopt);
  EXPECT_NE(make(std::nullopt).find("attention: its kernel reads"), std::string::npos) << make(std::nullopt);
  EXPECT_THROW(make(true), UserError);
}

class Captured : public Gpu, public ::testing::WithParamInterface<Param> {};

// Ops' own kernels, but for those that host_rows.cpp says read on the host.
TEST_P(Captured, own_kernel_gives_the_same_bits) {
  const OpDef& op = *GetParam().op;
  if (!op.kernel || op.meaning || op.atomic_adds) return;    // nothing to run; rows of experts; bits vary
  const sheaf::testing::Call call = make_call(op, *GetParam().c, Mode::fp64, 1);
  std::vector<Type> storage = call.in_types;
  Types types(call.in.size());
  for (std::size_t i = 0; i < call.present.size(); ++i) {
    if (storage[i].dtype == DType::fp64) storage[i].dtype = DType::fp32;
    types[call.present[i]] = &storage[i];
  }
  if (const KernelRow* row = select_kernel(op, DeviceKind::cuda, false, call.attrs, types); row && !row->capture_safe) return;

  const c10::cuda::CUDAStreamGuard stream(c10::cuda::getStreamFromPool());
  take_lasting_workspaces(DeviceKind::cuda, 0);
  std::vector<at::Tensor> in(call.in.size()), out;
  for (std::size_t i = 0; i < in.size(); ++i)
    if (call.in[i].defined()) in[i] = call.in[i].to(types[i]->dtype == DType::fp32 ? at::kFloat : call.in[i].scalar_type()).to(kGpu);
  for (const Type& type : infer(op, call.attrs, types))
    out.push_back(at::empty(type.shape, at::TensorOptions().dtype(scalar_type(type.dtype)).device(kGpu)));
  std::vector<at::Tensor> results = out;
  if (results.empty()) results.push_back(in[0]);    // set: the target

  std::int64_t bytes = 0;
  for (int i = 0; i < 2; ++i) {
    const ScratchScope scope(DeviceKind::cuda, nullptr, 0);
    op.kernel({in, out, call.attrs});
    bytes = scope.peak();
  }
  std::vector<at::Tensor> expected;
  for (const at::Tensor& t : results) expected.push_back(t.cpu());
  const at::Tensor slot = at::empty({256 + bytes}, at::TensorOptions().dtype(at::kByte).device(kGpu));
  const auto graph = capture_graph([&] {
    const ScratchScope scope(DeviceKind::cuda, static_cast<char*>(slot.data_ptr()) + 256, bytes);
    op.kernel({in, out, call.attrs});
  });
  for (at::Tensor& t : out) t.zero_();
  for (int i = 0; i < 2; ++i) graph->launch();
  for (std::size_t i = 0; i < results.size(); ++i) EXPECT_TRUE(at::equal(results[i].cpu(), expected[i])) << "output " << i;
}

INSTANTIATE_TEST_SUITE_P(Ops, Captured, ::testing::ValuesIn(all_cases()), param_name);

}    // namespace
