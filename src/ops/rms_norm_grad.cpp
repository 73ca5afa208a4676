#include <ATen/core/Tensor.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>

#include "ops/builder.h"

namespace sheaf {

// With t = w dy:  dx = r t - x r^3 mean(t x),  dw = sum over tokens of dy x r.  dw is fp32 for low-precision x: many tokens are summed.
OpDef rms_norm_grad() {
  return {.doc = "gradients of rms_norm: dx, dw",
          .rule = ".. d, d, .. d -> .. d, d; full d; linear dy",
          .dtype = [](const Attrs&, const Types& in,
                      std::size_t i) { return i == 1 && size_bytes(in[0]->dtype) == 2 ? DType::fp32 : in[0]->dtype; },
          .flops = [](const Attrs&, const Types& in) { return 10.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .kernel =
              [](const Args& a) {
                const auto wide_type = a.in[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
                const at::Tensor x = a.in[0].to(wide_type), dy = a.in[2].to(wide_type);
                const at::Tensor r = x.square().mean(-1, true).add(a.attrs.number("eps")).rsqrt();
                const at::Tensor t = dy.mul(a.in[1]);
                const at::Tensor dx = t.mul(r).sub_(x.mul(r.pow(3).mul(t.mul(x).mean(-1, true))));
                a.out[0].copy_(dx);
                a.out[1].copy_(dy.mul(x).mul(r).reshape({-1, x.size(-1)}).sum(0));
              },
          .cases = {{.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Real, Real, Real}, .attrs = {{"eps", 1e-5}}}}};
}

}    // namespace sheaf
