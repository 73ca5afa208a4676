// A layer of experts, forward and backward, by the rows that CUDA takes: captured in a graph; timed.
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include "gpu/routed.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

struct Step {
  std::string name;
  const KernelRow* row;
  std::vector<at::Tensor> in, out;
  Attrs attrs;
  double flops;

  std::int64_t bytes() const {    // each operand read once, each output written once
    std::int64_t n = 0;
    for (const auto* side : {&in, &out})
      for (const at::Tensor& t : *side)
        if (t.defined()) n += static_cast<std::int64_t>(t.nbytes());
    return n;
  }
};

class Layer {
 public:
  Layer(const Routing& routing, std::int64_t h, std::int64_t m) : r_(routing.decided()) {
    const auto given = [](const Shape& shape) { return Operand{at::randn(shape, at::TensorOptions().dtype(at::kBFloat16).device(kGpu))}; };
    ids = {r_.ids.to(kGpu)};
    x = given({r_.b, r_.s, h}), dy = given({r_.b, r_.s, h});
    const Operand w_bsk = given({r_.b, r_.s, r_.k}), up = given({r_.experts, 2, m, h}), down = given({r_.experts, h, m});
    const Attrs k = {{"k", Int(r_.k)}};
    const auto product = [&](const char* rule, const Operand& a, const Operand& b) {
      return add("grouped_einsum", {a, b, expert_}, {{"rule", Text(rule)}, {"dtype", Text("same")}});
    };
    const auto by_row = [&](const char* rule, const Operand& a, const Operand& b) {
      return add("einsum", {a, b}, {{"rule", Text(rule)}, {"dtype", Text("same")}});
    };
    const Attrs gate = {{"rule", Text("e b s g m -> e b s m")}, {"activation", Text("silu")}, {"limit", 0.0}};

    // Beside what the rows follow, `ids`, whose load is known.
    const Attrs norm = {{"eps", 0.0}, {"floor", 0.0}};
    logits = {at::randn({r_.b, r_.s, r_.experts}, at::TensorOptions().device(kGpu))};
    const Operand scores = add("softmax", {logits}, {});
    const Operand chosen =
        add("choose_experts", {scores, {}}, {{"k", Int(r_.k)}, {"groups", Int(0)}, {"kept_groups", Int(0)}, {"group_top", Int(0)}});
    add("count_experts", {chosen}, r_.route_attrs());
    const Operand taken = add("take", {scores, chosen}, {});
    add("normalize", {taken}, norm);

    const Operand slot = add("route", {ids, {}}, r_.route_attrs());
    expert_ = {steps.back().out[1], true};
    const Operand rows = add("dispatch", {x, slot}, k), w = add("dispatch_weights", {w_bsk, slot}, {});
    const Operand pair = product("e b s h, e g m h -> e b s g m", rows, up), a = add("gated_weighted", {pair, w}, gate);
    const Operand y = product("e b s m, e h m -> e b s h", a, down);
    add("combine", {y, slot}, k);

    const Operand dy_rows = add("dispatch", {dy, slot}, k);
    product("e b s h, e b s m -> e h m", dy_rows, a);
    const Operand da = product("e b s h, e h m -> e b s m", dy_rows, down);
    Attrs gate_of_dw = gate;
    gate_of_dw.set("dtype", Text("same"));
    const Operand dpair = add("gated_weighted_grad", {pair, w, da}, gate_of_dw);
    add("combine_weights", {{steps.back().out[1], true}, slot}, k);
    product("e b s g m, e b s h -> e g m h", dpair, rows);
    add("combine", {product("e b s g m, e g m h -> e b s h", dpair, up), slot}, k);

    // Of experts with biases: the results of `down` are weighted behind its bias.
    const Operand bias = given({r_.experts, 2, m}), bias_of_down = given({r_.experts, h});
    const Attrs wide = {{"dtype", Text("fp32")}}, same = {{"dtype", Text("same")}};
    add("gated", {pair}, gate), add("gated_grad", {pair, da}, gate);
    by_row("e b s h, e b s -> e b s h", y, w), by_row("e b s h, e b s h -> e b s", dy_rows, y);
    add("add_expert_bias", {pair, bias, expert_}, {});
    add("biased_gated", {pair, bias, expert_}, gate);
    add("sum_expert_rows", {add("biased_gated_grad", {pair, bias, expert_, da}, gate), expert_}, wide);
    add("biased_weighted", {y, bias_of_down, expert_, w}, {});
    add("biased_weighted_grad", {y, bias_of_down, expert_, w, dy_rows}, same);

    const Operand dtaken = add("normalize_grad", {taken, taken}, norm);
    add("softmax_rows_grad", {scores, add("put", {dtaken, chosen}, {{"extent", Int(r_.experts)}})}, {});

    std::int64_t scratch = 0;
    for (Step& step : steps) scratch = std::max(scratch, measured(step));
    slot_ = at::zeros({scratch + 256}, at::TensorOptions().dtype(at::kByte).device(kGpu));
    scratch_ = scratch;
  }

  // As the executor does: what a row allocates comes from its slot.
  void run(Step& step) {
    const ScratchScope scope(DeviceKind::cuda, static_cast<char*>(slot_.data_ptr()) + 256, scratch_);
    launch(step);
  }
  void run() {
    for (Step& step : steps) run(step);
  }
  std::vector<at::Tensor> results() const {
    std::vector<at::Tensor> out;
    for (const Step& step : steps)
      for (const at::Tensor& t : step.out) out.push_back(t.cpu());
    return out;
  }

  Operand ids, logits, x, dy;
  std::vector<Step> steps;

 private:
  // The first output.
  Operand add(const char* name, const Operands& in, const Attrs& attrs) {
    const WholeTypes types(in, r_);
    const KernelRow* row = row_of(name, in, attrs, r_);
    if (!row) throw std::runtime_error(fmt::format("{} {}: no row", name, print(attrs)));
    const std::string rule = attrs.has("rule") ? attrs.text("rule") : "";
    steps.push_back({fmt::format("{} '{}' {}", name, row->name, rule), row, tensors(in), outputs(name, in, attrs, r_), attrs,
                     flops(op(name), attrs, types.types)});
    launch(steps.back());    // the next ones want its results
    return {steps.back().out[0], infer(op(name), attrs, types.types)[0].routed > 0};
  }
  void launch(Step& step) { step.row->launch({step.in, step.out, step.attrs, r_.begin, r_.end}); }
  std::int64_t measured(Step& step) {
    const ScratchScope scope(DeviceKind::cuda, nullptr, 0);
    launch(step);
    return scope.peak();
  }

  Routing r_;
  Operand expert_;
  at::Tensor slot_;
  std::int64_t scratch_ = 0;
};

using MoeLayer = Gpu;

// Nothing in it waits for the host or asks for its memory: else the capture fails. The graph then follows other decisions of the router.
TEST_F(MoeLayer, is_captured_in_a_graph) {
  at::manual_seed(1);
  Layer layer({"small", 16, 2, 300, 4, 0, 16, 15}, 136, 72);
  const auto ok = [](cudaError_t error) { ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error); };
  c10::cuda::device_synchronize();
  const auto stream = c10::cuda::getStreamFromPool(false, 0);
  const c10::cuda::CUDAStreamGuard guard(stream);
  cudaGraph_t graph{};
  cudaGraphExec_t program{};
  const std::int64_t stray = num_stray_allocations(DeviceKind::cuda);
  ok(cudaStreamBeginCapture(stream.stream(), cudaStreamCaptureModeThreadLocal));
  layer.run();
  ok(cudaStreamEndCapture(stream.stream(), &graph));
  EXPECT_EQ(num_stray_allocations(DeviceKind::cuda), stray);
  ok(cudaGraphInstantiate(&program, graph, 0));
  layer.ids.tensor.copy_(layer.ids.tensor.flip({1}));
  layer.logits.tensor.copy_(layer.logits.tensor.flip({2}));
  layer.x.tensor.copy_(layer.x.tensor.mul(0.5));
  ok(cudaGraphLaunch(program, stream.stream()));
  ok(cudaStreamSynchronize(stream.stream()));
  const auto replayed = layer.results();
  layer.run();
  ok(cudaStreamSynchronize(stream.stream()));
  const auto called = layer.results();
  for (std::size_t i = 0; i < called.size(); ++i) EXPECT_TRUE(at::equal(replayed[i], called[i])) << i;
  cudaGraphExecDestroy(program), cudaGraphDestroy(graph);
}

// SHEAF_TIMES=1: a layer of Qwen3-30B-A3B on 16,384 tokens, against the bytes of operands and outputs at the speed of a copy.
TEST_F(MoeLayer, times) {
  if (!times_wanted()) GTEST_SKIP() << "SHEAF_TIMES=1 prints times";
  Layer layer({"qwen3_30b", 128, 4, 4096, 8, 0, 128, 128}, 2048, 768);
  double all = 0;
  for (Step& step : layer.steps) {
    const auto bytes = static_cast<double>(step.bytes());
    const double ms = milliseconds([&] { layer.run(step); }), floor = bytes / copied_bytes_per_ms(bytes);
    fmt::print("{:8.3f} ms  {:5.2f} TB/s  {:4.0f} % of a copy  {:4.0f} TFLOP/s  {}\n", ms, bytes / ms / 1e9, 100 * floor / ms,
               step.flops / ms / 1e9, step.name);
    all += ms;
  }
  fmt::print("{:8.3f} ms  all\n", all);
}

}    // namespace
