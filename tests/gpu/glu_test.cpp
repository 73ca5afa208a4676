// swiglu, geglu and their gradients on the GPU against the ops' portable kernels in fp64.
#include <ATen/ops/randn.h>

#include "gpu/gpu.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

struct Glu {
  std::string name;    // of the op and, behind _grad, of its gradient
  Attrs attrs;
};
const std::vector<Glu> kAll = {{"swiglu", {}}, {"geglu", {{"tanh", true}}}, {"geglu", {{"tanh", false}}}};

using GluKernel = Gpu;

// fp32: 1e-5, of functions of one number. bf16: one rounding, of 2^-8, leaves about a third of that in the 2-norm.
TEST_F(GluKernel, equals_the_parts_in_fp64) {
  for (const auto& [name, attrs] : kAll)
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      for (const Shape& shape : {Shape{0}, Shape{1}, Shape{7}, Shape{3, 1029}, Shape{1000, 1000}})
        for (const std::int64_t skipped : {0, 1}) {    // 1: not on 16 bytes
          const auto from = [&](std::uint64_t seed) {
            const at::Tensor t = normal(shape, dtype, seed).mul(4);
            return t;
          };
          const auto device = [&](const at::Tensor& t) {
            const at::Tensor all = at::randn({t.numel() + skipped}, at::TensorOptions().dtype(dtype).device(kGpu));
            at::Tensor view = all.narrow(0, skipped, t.numel()).view(shape);
            view.copy_(t);
            return view;
          };
          const at::Tensor gate = from(1), up = from(2), dy = from(3);
          const double bound = dtype == at::kFloat ? 1e-5 : 4e-3;
          const auto exact = run_portable(name, {gate.to(at::kDouble), up.to(at::kDouble)}, attrs);
          const auto got = run_row(name, "sheaf", true, {device(gate), device(up)}, attrs);
          EXPECT_LE(relative_error(got[0], exact[0]), bound) << name << shape.back();
          const auto exact_grad = run_portable(name + "_grad", {gate.to(at::kDouble), up.to(at::kDouble), dy.to(at::kDouble)}, attrs);
          const auto got_grad = run_row(name + "_grad", "sheaf", true, {device(gate), device(up), device(dy)}, attrs);
          for (std::size_t i = 0; i < 2; ++i) EXPECT_LE(relative_error(got_grad[i], exact_grad[i]), bound) << name << i << shape.back();
        }
}

// Far from 0 the gate is all or nothing: no exponential may overflow into a NaN.
TEST_F(GluKernel, far_gates_are_open_or_shut) {
  for (const auto& [name, attrs] : kAll)
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      at::Tensor gate = normal({2, 512}, dtype, 1).abs().add(1).mul(1000);
      gate[1].neg_();
      const at::Tensor ones = normal({2, 512}, dtype, 2).fill_(1);
      const at::Tensor y = run_row(name, "sheaf", true, {gate.to(kGpu), ones.to(kGpu)}, attrs)[0].cpu();
      EXPECT_TRUE(y[0].equal(gate[0]) && y[1].eq(0).all().item<bool>()) << name;
      const auto d = run_row(name + "_grad", "sheaf", true, {gate.to(kGpu), ones.to(kGpu), ones.to(kGpu)}, attrs);
      EXPECT_TRUE(d[0].cpu()[0].eq(1).all().item<bool>() && d[0].cpu()[1].eq(0).all().item<bool>()) << name;
    }
}

// SHEAF_TIMES=1: 16,384 tokens of Qwen3-1.7B; below, what LibTorch does with ops that have no row of ours.
TEST_F(GluKernel, times) {
  if (!times_wanted()) GTEST_SKIP() << "SHEAF_TIMES=1 prints times";
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto some = [&](const Shape& shape) { return at::randn(shape, at::TensorOptions().dtype(dtype).device(kGpu)); };
    const at::Tensor gate = some({16384, 6144}), up = some({16384, 6144}), dy = some({16384, 6144});
    for (const auto& [name, attrs] : kAll) {
      print_time(name, "sheaf", {gate, up}, attrs);
      print_time(name + "_grad", "sheaf", {gate, up, dy}, attrs);
    }
    print_time("add", nullptr, {some({16384, 2048}), some({16384, 2048})}, {});
    print_time("einsum", "rows times numbers", {some({4, 4096, 2048}), some({4, 4096})},
               {{"rule", Text("b s d, b s -> b s d")}, {"dtype", Text("same")}});
  }
}

}    // namespace
