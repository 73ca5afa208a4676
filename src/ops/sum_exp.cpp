#include <ATen/core/Tensor.h>
#include <ATen/ops/sum.h>

#include "ops/builder.h"

namespace sheaf {

OpDef sum_exp() {
  return {.doc = "sum over v of exp(x - m)",
          .rule = ".. v, .. -> ..",
          .grad = [](const Grad& g) -> Values {
            return {g.b.exp_weighted(g.x(0), g.x(1), g.dy()), g.b.scale(g.b.mul(g.dy(), g.out[0]), -1.0)};
          },
          .kernel =
              [](const Args& a) { at::sum_out(a.out[0], a.in[0].sub(a.in[1].unsqueeze(-1)).exp_(), {-1}, false, a.out[0].scalar_type()); },
          .cases = {{.dims = {{"..", {2, 3}}, {"v", {7}}}, .domain = {Real, Real}}}};
}

}    // namespace sheaf
