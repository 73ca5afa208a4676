#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>

#include "ops/builder.h"

namespace sheaf {

// The statistics are fp32 (fp64 for fp64); n is rounded to x's dtype before w multiplies, as HF's llama and qwen do.
OpDef rms_norm() {
  return {.doc = "w n, n = x / sqrt(mean over d of x^2 + eps) (Zhang, Sennrich 2019)",
          .rule = ".. d, d -> .. d; full d; linear w",
          .flops = [](const Attrs&, const Types& in) { return 4.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .grad = [](const Grad& g) -> Values { return g.b.rms_norm_grad(g.x(0), g.x(1), g.dy(), g.attrs.number("eps")); },
          .kernel =
              [](const Args& a) {
                const at::Tensor& x = a.in[0];
                const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
                const at::Tensor r = wide.square().mean(-1, true).add(a.attrs.number("eps")).rsqrt();
                at::mul_out(a.out[0], wide.mul(r).to(x.scalar_type()), a.in[1]);
              },
          .cases = {{.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Real, Real}, .attrs = {{"eps", 1e-5}}}}};
}

}    // namespace sheaf
