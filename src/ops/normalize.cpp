#include <ATen/core/Tensor.h>
#include <ATen/ops/div.h>

#include "ops/builder.h"

namespace sheaf {

OpDef normalize() {
  return {
      .doc = "x / max(sum over d of x + eps, floor)",
      .rule = ".. d -> .. d; full d",
      .flops = [](const Attrs&, const Types& in) { return 2.0 * static_cast<double>(num_elements(in[0]->shape)); },
      .grad = [](const Grad& g) -> Values { return {g.b.normalize_grad(g.x(), g.dy(), g.attrs.number("eps"), g.attrs.number("floor"))}; },
      .kernel =
          [](const Args& a) {
            const at::Tensor sum = a.in[0].sum(-1, true).add_(a.attrs.number("eps")).clamp_min_(a.attrs.number("floor"));
            at::div_out(a.out[0], a.in[0], sum);
          },
      .cases = {{.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Positive}, .attrs = {{"eps", 0.25}, {"floor", 0.0}}},
                {.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Positive}, .attrs = {{"eps", 0.0}, {"floor", 6.0}}}}};
}

}    // namespace sheaf
