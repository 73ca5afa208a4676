#include "ops/adamw_math.h"

namespace sheaf {

// Weights of fp32 as their halves (base/dtype.h): the upper one, rounded, is what a step computes with, so no copy in bf16 lies beside them
// (as the Split-SGD of Kalamkar et al. 2020, where the upper half is cut off). In other dtypes, where the tests of rules work, the weights
// are high + low, and all of the new ones is in high.
static void adamw_split_kernel(const Args& a) {
  const at::Tensor &high = a.in[0], &low = a.in[1];
  const bool bits = high.scalar_type() == at::kBFloat16 && low.scalar_type() == at::kShort;
  const at::Tensor w = bits ? high.view(at::kShort).to(at::kInt).bitwise_left_shift(16).add_(low).view(at::kFloat) : high.add(low);
  const auto next = adamw_update(a, w, 2);
  if (bits) {
    const at::Tensor b = next[0].view(at::kInt);
    const at::Tensor upper = b.bitwise_right_shift(16);    // arithmetic: the sign stays
    const at::Tensor nan = next[0].isnan();
    a.out[0].view(at::kShort).copy_(upper.bitwise_or(0x40).where(nan, upper.add(b.bitwise_right_shift(15).bitwise_and(1))));
    a.out[1].copy_(b.masked_fill(nan, 0));
  } else {
    a.out[0].copy_(next[0]);
    a.out[1].zero_();
  }
  a.out[2].copy_(next[1]);
  a.out[3].copy_(next[2]);
}

OpDef adamw_split() {
  const Case decoupled = {.dims = {{"..", {3, 5}}},
                          .domain = {Real, Real, Real, Positive, Real, Positive, Flag, Positive, Fraction, Fraction, Fraction, Fraction},
                          .attrs = {{"eps", 1e-8}, {"weight_decay", 0.1}, {"decoupled", true}}};
  const Case coupled = {
      .dims = {{"..", {4}}}, .domain = decoupled.domain, .attrs = {{"eps", 1e-8}, {"weight_decay", 0.1}, {"decoupled", false}}};
  return {.doc = "adamw on weights in two parts, bf16 and what it leaves out of fp32 in i16: high', low', m', v'",
          .rule = ".., .., .., .., .., (), (), (), (), (), (), () -> .., .., .., ..",
          .dtype = adamw_dtype,
          .flops = adamw_flops,
          .kernel = adamw_split_kernel,
          .in_place = true,
          .cases = {decoupled, coupled}};
}

}    // namespace sheaf
