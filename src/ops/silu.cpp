#include <ATen/core/Tensor.h>
#include <ATen/ops/silu.h>

#include "ops/builder.h"

namespace sheaf {

OpDef silu() {
  return {.doc = "x / (1 + exp(-x)) (Elfwing et al. 2017)",
          .rule = ".. -> ..",
          .grad = [](const Grad& g) -> Values { return {g.b.silu_grad(g.x(), g.dy())}; },
          .kernel = [](const Args& a) { at::silu_out(a.out[0], a.in[0]); },
          .in_place = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}}}};
}

}    // namespace sheaf
