#include <ATen/core/Tensor.h>
#include <ATen/ops/sigmoid.h>

#include "ops/builder.h"

namespace sheaf {

OpDef sigmoid() {
  return {.doc = "1 / (1 + exp(-x))",
          .rule = ".. -> ..",
          .grad = [](const Grad& g) -> Values { return {g.b.sigmoid_grad(g.out[0], g.dy())}; },
          .kernel = [](const Args& a) { at::sigmoid_out(a.out[0], a.in[0]); },
          .in_place = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}}}};
}

}    // namespace sheaf
