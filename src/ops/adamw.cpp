#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

// AdamW (Loshchilov, Hutter 2019), as DeepSpeed's FusedAdam with adam_w_mode; decoupled = false: Adam with L2 (Kingma, Ba 2015).
// g may be of fewer bits than w; it is scaled by `factor` (clipping). bias1 = 1 - beta1^t, bias2 = 1 - beta2^t (both 1: no bias
// correction). With commit = 0 the outputs are the inputs.
static void adamw_kernel(const Args& a) {
  const at::Tensor &w = a.in[0], &m = a.in[1], &v = a.in[2];
  const at::Tensor commit = a.in[5].gt(0), lr = a.in[6], beta1 = a.in[7], beta2 = a.in[8], bias1 = a.in[9], bias2 = a.in[10];
  const double eps = a.attrs.number("eps"), decay = a.attrs.number("weight_decay");
  const bool decoupled = a.attrs.flag("decoupled");
  at::Tensor g = a.in[3].to(w.scalar_type()).mul(a.in[4]);
  if (!decoupled) g.add_(w.mul(decay));
  const at::Tensor m1 = m.mul(beta1).add_(g.mul(beta1.neg().add(1)));
  const at::Tensor v1 = v.mul(beta2).add_(g.square().mul_(beta2.neg().add(1)));
  at::Tensor update = m1.div(bias1).div_(v1.div(bias2).sqrt_().add_(eps));
  if (decoupled) update.add_(w.mul(decay));
  const at::Tensor w1 = w.sub(update.mul_(lr));
  a.out[0].copy_(w1.where(commit, w));
  a.out[1].copy_(m1.where(commit, m));
  a.out[2].copy_(v1.where(commit, v));
}

OpDef adamw() {
  return {.doc = "one AdamW or Adam update: w', m', v'; held if commit is 0. g may be of fewer bits than w",
          .rule = ".., .., .., .., (), (), (), (), (), (), () -> .., .., ..",
          .flops = [](const Attrs&, const Types& in) { return 14.0 * static_cast<double>(num_elements(in[0]->shape)); },
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
