#include <ATen/core/Tensor.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>

#include "base/text.h"
#include "ops/builder.h"
#include "ops/norm_rule.h"

namespace sheaf {

// With t = w dy:  dx = r t - x r^3 mean(t x),  dw = sum over tokens of dy x r.  dw is fp32 for low-precision x: many tokens are summed.
OpDef rms_norm_grad() {
  return {.doc = "gradients of rms_norm: dx, and dw where there is a w",
          .rule_of =
              [](const Attrs&, const Types& in) {
                const std::string_view d = norm_factors(in[1]);
                return in[1] ? fmt::format(".. {0}, {0}, .. {0} -> .. {0}, {0}; full {0}; linear dy", d)
                             : ".. d, .. d -> .. d; full d; linear dy";
              },
          .dtype = [](const Attrs&, const Types& in,
                      std::size_t i) { return i == 1 && size_bytes(in[0]->dtype) == 2 ? DType::fp32 : in[0]->dtype; },
          .flops = [](const Attrs&, const Types& in) { return 10.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .kernel =
              [](const Args& a) {
                const at::Tensor& w = a.in[1];
                const auto wide_type = a.in[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
                const at::Tensor x = as_rows(a.in[0].to(wide_type), w), dy = as_rows(a.in[2].to(wide_type), w);
                const at::Tensor r = x.square().mean(-1, true).add(a.attrs.number("eps")).rsqrt();
                const at::Tensor t = w.defined() ? dy.mul(w.flatten()) : dy;
                const at::Tensor dx = t.mul(r).sub_(x.mul(r.pow(3).mul(t.mul(x).mean(-1, true))));
                a.out[0].copy_(dx.view(a.out[0].sizes()));
                if (w.defined()) a.out[1].copy_(dy.mul(x).mul(r).reshape({-1, x.size(-1)}).sum(0).view(w.sizes()));
              },
          .cases = {{.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Real, Real, Real}, .attrs = {{"eps", 1e-5}}},
                    {.dims = {{"..", {2, 3}}, {"h", {2}}, {"d", {4}}}, .domain = {Real, Real, Real}, .attrs = {{"eps", 1e-5}}},
                    {.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Real, Real, Real}, .attrs = {{"eps", 1e-5}}, .absent = {1}}}};
}

}    // namespace sheaf
