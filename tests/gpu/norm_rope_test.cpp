// rms_norm, its gradient and rotate on the GPU against the ops' portable kernels in fp64.
#include "gpu/gpu.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

struct Size {
  std::int64_t tokens, d;
};
std::ostream& operator<<(std::ostream& out, const Size& s) { return out << s.tokens << "_of_" << s.d; }

class NormKernel : public Gpu, public ::testing::WithParamInterface<Size> {};

// fp32: rounding of sums of up to 8192 terms. bf16: its unit is 2^-8 = 0.4 %, of which a random rounding leaves about a third in the
// 2-norm; the norm rounds twice, and dw is fp32 of bf16 inputs.
TEST_P(NormKernel, equals_the_op_in_fp64) {
  const auto [tokens, d] = GetParam();
  const Attrs attrs = {{"eps", 1e-6}};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const double bound = dtype == at::kFloat ? 2e-6 : 4e-3;
    const at::Tensor x = normal({tokens, d}, dtype, 1).mul(1.5), w = normal({d}, dtype, 2), dy = normal({tokens, d}, dtype, 3);
    const auto exact = run_portable("rms_norm", {x.to(at::kDouble), w.to(at::kDouble)}, attrs);
    const auto got = run_row("rms_norm", "sheaf", true, {x.to(kGpu), w.to(kGpu)}, attrs);
    EXPECT_LT(relative_error(got[0], exact[0]), bound);
    const auto exact_grad = run_portable("rms_norm_grad", {x.to(at::kDouble), w.to(at::kDouble), dy.to(at::kDouble)}, attrs);
    const auto got_grad = run_row("rms_norm_grad", "sheaf", true, {x.to(kGpu), w.to(kGpu), dy.to(kGpu)}, attrs);
    EXPECT_LT(relative_error(got_grad[0], exact_grad[0]), bound);
    EXPECT_EQ(got_grad[1].scalar_type(), at::kFloat);
    EXPECT_LT(relative_error(got_grad[1], exact_grad[1]), 1e-5);
    const auto again = run_row("rms_norm_grad", "sheaf", true, {x.to(kGpu), w.to(kGpu), dy.to(kGpu)}, attrs);
    EXPECT_TRUE(got_grad[1].cpu().equal(again[1].cpu()));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, NormKernel,
                         ::testing::Values(Size{1, 8}, Size{37, 24}, Size{1000, 64}, Size{20000, 128}, Size{333, 520}, Size{1000, 1024},
                                           Size{2000, 2048}, Size{50, 2880}, Size{700, 4096}, Size{33, 8192}),
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

}    // namespace
