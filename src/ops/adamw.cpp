#include "ops/adamw_math.h"

namespace sheaf {

// AdamW (Loshchilov, Hutter 2019), as DeepSpeed's FusedAdam with adam_w_mode; decoupled = false: Adam with L2 (Kingma, Ba 2015).
// g and the moments may be of fewer bits than w; g is scaled by `factor` (clipping). bias1 = 1 - beta1^t, bias2 = 1 - beta2^t (both 1: no
// bias correction).
std::array<at::Tensor, 3> adamw_update(const Args& a, const at::Tensor& w, std::size_t first) {
  const auto in = [&](std::size_t i) -> const at::Tensor& { return a.in[first + i]; };
  const at::Tensor m = in(0).to(w.scalar_type()), v = in(1).to(w.scalar_type()), commit = in(4).gt(0);
  const at::Tensor &lr = in(5), &beta1 = in(6), &beta2 = in(7), &bias1 = in(8), &bias2 = in(9);
  const double eps = a.attrs.number("eps"), decay = a.attrs.number("weight_decay");
  const bool decoupled = a.attrs.flag("decoupled");
  at::Tensor g = in(2).to(w.scalar_type()).mul(in(3));
  if (!decoupled) g.add_(w.mul(decay));
  const at::Tensor m1 = m.mul(beta1).add_(g.mul(beta1.neg().add(1)));
  const at::Tensor v1 = v.mul(beta2).add_(g.square().mul_(beta2.neg().add(1)));
  at::Tensor update = m1.div(bias1).div_(v1.div(bias2).sqrt_().add_(eps));
  if (decoupled) update.add_(w.mul(decay));
  return {w.sub(update.mul_(lr)).where(commit, w), m1.where(commit, m), v1.where(commit, v)};
}

static void adamw_kernel(const Args& a) {
  const auto next = adamw_update(a, a.in[0], 1);
  for (std::size_t i = 0; i < next.size(); ++i) a.out[i].copy_(next[i]);
}

OpDef adamw() {
  return {.doc = "one AdamW or Adam update: w', m', v'; held if commit is 0. g, m and v may be of fewer bits than w",
          .rule = ".., .., .., .., (), (), (), (), (), (), () -> .., .., ..",
          .dtype = adamw_dtype,
          .flops = adamw_flops,
          .kernel = adamw_kernel,
          .in_place = true,
          .cases = {{.dims = {{"..", {3, 5}}},
                     .domain = {Real, Real, Positive, Real, Positive, Flag, Positive, Fraction, Fraction, Fraction, Fraction},
                     .attrs = {{"eps", 1e-8}, {"weight_decay", 0.1}, {"decoupled", true}}},
                    {.dims = {{"..", {4}}},
                     .domain = {Real, Real, Positive, Real, Positive, Flag, Positive, Fraction, Fraction, Fraction, Fraction},
                     .attrs = {{"eps", 1e-8}, {"weight_decay", 0.1}, {"decoupled", false}}}}};
}

}    // namespace sheaf
