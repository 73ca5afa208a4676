#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>

#include "base/text.h"
#include "ops/builder.h"
#include "ops/norm_rule.h"

namespace sheaf {

// The statistics are fp32 (fp64 for fp64). n is rounded to w's dtype before w multiplies: for equal dtypes as HF's llama and qwen do, and
// w in fp32 with x in bf16 is what gpt_oss does: rounded once, at the end.
OpDef rms_norm() {
  return {.doc = "w n, n = x / sqrt(mean over the dims of w of x^2 + eps) (Zhang, Sennrich 2019); without w: n, over the last dim",
          .rule_of =
              [](const Attrs&, const Types& in) {
                const std::string_view d = norm_factors(in[1]);
                return in[1] ? fmt::format(".. {0}, {0} -> .. {0}; full {0}; linear w", d) : ".. d -> .. d; full d";
              },
          .flops = [](const Attrs&, const Types& in) { return 4.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .grad = [](const Grad& g) -> Values {
            const Results d = g.b.rms_norm_grad(g.x(0), g.x(1), g.dy(), g.attrs.number("eps"));
            return {d[0], g.x(1) ? d[1] : Value{}};
          },
          .kernel =
              [](const Args& a) {
                const at::Tensor &w = a.in[1], x = as_rows(a.in[0], w);
                at::Tensor out = a.out[0].view(x.sizes());
                const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
                const at::Tensor n = wide.mul(wide.square().mean(-1, true).add(a.attrs.number("eps")).rsqrt());
                w.defined() ? void(at::mul_out(out, n.to(w.scalar_type()), w.flatten())) : void(out.copy_(n));
              },
          .cases = {{.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Real, Real}, .attrs = {{"eps", 1e-5}}},
                    {.dims = {{"..", {2, 3}}, {"h", {2}}, {"r", {3}}, {"d", {4}}}, .domain = {Real, Real}, .attrs = {{"eps", 1e-5}}},
                    {.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Real}, .attrs = {{"eps", 1e-5}}, .absent = {1}}}};
}

}    // namespace sheaf
