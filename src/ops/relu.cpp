#include <ATen/core/Tensor.h>
#include <ATen/ops/relu.h>

#include "ops/builder.h"

namespace sheaf {

OpDef relu() {
  return {.doc = "max(x, 0)",
          .rule = ".. -> ..",
          .grad = [](const Grad& g) -> Values { return {g.b.relu_grad(g.x(), g.dy())}; },
          .kernel = [](const Args& a) { at::relu_out(a.out[0], a.in[0]); },
          .in_place = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}}}};
}

}    // namespace sheaf
