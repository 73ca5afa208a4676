// rms_norm, its gradient, rotate and what is fused with them, on the GPU against the ops' portable kernels in fp64.
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include "gpu/gpu.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

struct Size {
  std::int64_t tokens, d;
};
std::ostream& operator<<(std::ostream& out, const Size& s) { return out << s.tokens << "_of_" << s.d; }

class NormKernel : public Gpu, public ::testing::WithParamInterface<Size> {};

at::Tensor wide(const at::Tensor& t) { return t.to(at::kDouble); }
std::vector<at::Tensor> wide(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> out;
  for (const at::Tensor& t : tensors) out.push_back(wide(t));
  return out;
}
std::vector<at::Tensor> on_gpu(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> out;
  for (const at::Tensor& t : tensors) out.push_back(t.to(kGpu));
  return out;
}

// Of x and of w.
constexpr std::pair<at::ScalarType, at::ScalarType> kTypes[] = {
    {at::kFloat, at::kFloat}, {at::kBFloat16, at::kBFloat16}, {at::kBFloat16, at::kFloat}};
// fp32: rounding of sums of up to 8192 terms. bf16: its unit is 2^-8 = 0.4 %, of which a random rounding leaves about a third in the
// 2-norm; the norm rounds twice, and dw is fp32 of bf16 inputs.
double bound(at::ScalarType dtype) { return dtype == at::kFloat ? 2e-6 : 4e-3; }

void expect_gradient(std::string_view op_name, const std::vector<at::Tensor>& in, const Attrs& attrs) {
  const auto exact = run_portable(op_name, wide(in), attrs);
  const auto got = run_row(op_name, "sheaf", true, on_gpu(in), attrs);
  EXPECT_LT(relative_error(got[0], exact[0]), bound(in[0].scalar_type())) << op_name;
  EXPECT_EQ(got[1].scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(got[1], exact[1]), 1e-5) << op_name;
  const auto again = run_row(op_name, "sheaf", true, on_gpu(in), attrs);
  EXPECT_TRUE(got[0].cpu().equal(again[0].cpu()) && got[1].cpu().equal(again[1].cpu())) << op_name;
}

TEST_P(NormKernel, equals_the_op_in_fp64) {
  const auto [tokens, d] = GetParam();
  const Attrs attrs = {{"eps", 1e-6}};
  for (const auto& [dtype, weight_dtype] : kTypes) {
    const at::Tensor x = normal({tokens, d}, dtype, 1).mul(1.5), w = normal({d}, weight_dtype, 2), dy = normal({tokens, d}, dtype, 3),
                     other = normal({tokens, d}, dtype, 4);
    const auto exact = run_portable("rms_norm", wide({x, w}), attrs);
    EXPECT_LT(relative_error(run_row("rms_norm", "sheaf", true, on_gpu({x, w}), attrs)[0], exact[0]), bound(dtype));
    expect_gradient("rms_norm_grad", {x, w, dy}, attrs);
    expect_gradient("rms_norm_grad_add", {x, w, dy, other}, attrs);

    // The norm is that of the sum as it is stored.
    const auto got = run_row("add_rms_norm", "sheaf", true, on_gpu({x, other, w}), attrs);
    EXPECT_TRUE(got[0].cpu().equal(x.add(other)));
    EXPECT_LT(relative_error(got[1], run_portable("rms_norm", wide({got[0].cpu(), w}), attrs)[0]), bound(dtype));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, NormKernel,
                         ::testing::Values(Size{1, 8}, Size{37, 24}, Size{1000, 64}, Size{20000, 128}, Size{333, 520}, Size{2000, 1024},
                                           Size{2000, 2048}, Size{50, 2880}, Size{700, 4096}, Size{300, 8192}, Size{100000, 128}),
                         [](const auto& info) { return std::to_string(info.param.tokens) + "_of_" + std::to_string(info.param.d); });

using RotateKernel = Gpu;

TEST_F(RotateKernel, equals_the_op_in_fp64) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const std::int64_t j : {8, 32, 64})
      for (const bool inverse : {false, true}) {
        const at::Tensor x = normal({2, 100, 3, 2, 128}, dtype, 1), cos = normal({2, 100, j}, at::kFloat, 2),
                         sin = normal({2, 100, j}, at::kFloat, 3);
        const Attrs attrs = {{"interleaved", false}, {"inverse", inverse}};
        const auto exact = run_portable("rotate", {x.to(at::kDouble), cos.to(at::kDouble), sin.to(at::kDouble)}, attrs);
        const auto got = run_row("rotate", "sheaf", true, {x.to(kGpu), cos.to(kGpu), sin.to(kGpu)}, attrs);
        EXPECT_LT(relative_error(got[0], exact[0]), dtype == at::kFloat ? 1e-6 : 4e-3) << j << inverse;    // bf16: one rounding
      }
}

// Of more heads than a thread takes at a time, too.
TEST_F(RotateKernel, with_a_bias_before_it_equals_the_parts_in_fp64) {
  const Attrs attrs = {{"interleaved", false}};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const std::int64_t j : {8, 64})
      for (const std::int64_t heads : {1, 3, 8}) {
        const at::Tensor x = normal({2, 100, heads, 2, 128}, dtype, 1), bias = normal({heads, 2, 128}, dtype, 2),
                         cos = normal({2, 100, j}, at::kFloat, 3), sin = normal({2, 100, j}, at::kFloat, 4);
        const auto exact = run_portable("biased_rotate", wide({x, bias, cos, sin}), attrs);
        const auto got = run_row("biased_rotate", "sheaf", true, on_gpu({x, bias, cos, sin}), attrs);
        EXPECT_LT(relative_error(got[0], exact[0]), dtype == at::kFloat ? 1e-6 : 4e-3) << j << " " << heads;    // bf16: one rounding
      }
}

struct Heads {
  Shape x;    // [b, s, heads.., d]
  std::int64_t j;
};

// Rows of heads that fill no run of them, more of them than groups of threads run at a time and of a number that no step divides, channels
// that pass, widths that are no power of two. bf16: n and y are rounded.
TEST_F(RotateKernel, with_the_norm_before_it_equals_the_parts_in_fp64) {
  const Attrs attrs = {{"eps", 1e-6}, {"interleaved", false}};
  for (const auto& [shape, j] :
       {Heads{{1, 1, 1, 16}, 8}, Heads{{2, 100, 3, 2, 128}, 64}, Heads{{2, 300, 8, 2, 128}, 64}, Heads{{1, 2000, 8, 128}, 64},
        Heads{{1, 2000, 7, 128}, 64}, Heads{{2, 50, 3, 128}, 16}, Heads{{2, 50, 5, 64}, 32}, Heads{{2, 50, 2, 3, 96}, 48},
        Heads{{1, 30, 7, 80}, 8}, Heads{{2, 33, 4, 256}, 128}})
    for (const auto& [dtype, weight_dtype] : kTypes) {
      const at::Tensor x = normal(shape, dtype, 1), w = normal({shape.back()}, weight_dtype, 2), dy = normal(shape, dtype, 3);
      const at::Tensor angles = normal({shape[0], shape[1], j}, at::kFloat, 4), cos = angles.cos(), sin = angles.sin();
      const auto exact = run_portable("norm_rotate", wide({x, w, cos, sin}), attrs);
      const auto got = run_row("norm_rotate", "sheaf", true, on_gpu({x, w, cos, sin}), attrs);
      EXPECT_LT(relative_error(got[0], exact[0]), bound(dtype)) << x.sizes() << j;
      expect_gradient("norm_rotate_grad", {x, w, dy, cos, sin}, attrs);
    }
}

// Of no tokens the op's own kernels do what there is to do.
TEST_F(RotateKernel, leaves_empty_pieces_to_the_portable_kernels) {
  const Type x{DType::bf16, {2, 0, 4, 128}, {}}, w{DType::bf16, {128}, {}}, angles{DType::fp32, {2, 0, 64}, {}};
  const Attrs attrs = {{"eps", 1e-6}, {"interleaved", false}};
  EXPECT_FALSE(select_kernel(op("norm_rotate"), DeviceKind::cuda, true, attrs, {&x, &w, &angles, &angles}));
  EXPECT_FALSE(select_kernel(op("norm_rotate_grad"), DeviceKind::cuda, true, attrs, {&x, &w, &x, &angles, &angles}));
  const at::Tensor none = normal({2, 0, 128}, at::kBFloat16, 1).to(kGpu), weight = normal({128}, at::kBFloat16, 2).to(kGpu);
  EXPECT_EQ(run_portable("rms_norm_grad_add", {none, weight, none, none}, {{"eps", 1e-6}})[1].cpu().norm().item<float>(), 0);
}

// SHEAF_TIMES=1: 16,384 tokens of Qwen3-1.7B, whose queries have 16 heads and keys 8.
TEST_F(RotateKernel, times) {
  if (!times_wanted()) GTEST_SKIP() << "SHEAF_TIMES=1 prints times";
  const Attrs norm = {{"eps", 1e-6}}, both = {{"eps", 1e-6}, {"interleaved", false}},
              rotation = {{"interleaved", false}, {"inverse", false}};
  const auto some = [](const Shape& shape, at::ScalarType dtype) {
    return at::randn(shape, at::TensorOptions().dtype(dtype).device(kGpu));
  };
  for (const auto& [dtype, weight_dtype] : kTypes) {
    fmt::print("x {}, w {}\n", c10::toString(dtype), c10::toString(weight_dtype));
    for (const Shape& shape : {Shape{4, 4096, 2048}, Shape{4, 4096, 4096}, Shape{4, 4096, 16, 128}}) {
      const at::Tensor x = some(shape, dtype), w = some({shape.back()}, weight_dtype), dy = some(shape, dtype), more = some(shape, dtype);
      print_time("rms_norm", "sheaf", {x, w}, norm);
      print_time("add_rms_norm", "sheaf", {x, more, w}, norm);
      print_time("rms_norm_grad", "sheaf", {x, w, dy}, norm);
      print_time("rms_norm_grad_add", "sheaf", {x, w, dy, more}, norm);
    }
    const at::Tensor cos = some({4, 4096, 64}, at::kFloat), sin = some({4, 4096, 64}, at::kFloat);
    for (const std::int64_t heads : {16, 8}) {
      const at::Tensor x = some({4, 4096, heads, 128}, dtype), w = some({128}, weight_dtype), dy = some({4, 4096, heads, 128}, dtype);
      print_time("norm_rotate", "sheaf", {x, w, cos, sin}, both);
      print_time("norm_rotate_grad", "sheaf", {x, w, dy, cos, sin}, both);
      print_time("rotate", "sheaf", {x, cos, sin}, rotation);
      print_time("biased_rotate", "sheaf", {x, some({heads, 128}, dtype), cos, sin}, {{"interleaved", false}});
    }
  }
}

}    // namespace
