#include <ATen/core/Tensor.h>
#include <ATen/ops/_softmax.h>

#include "ops/builder.h"

namespace sheaf {

// For routers: the whole row is on the rank. Over a vocabulary it is row_max, sum_exp and what follows.
OpDef softmax() {
  return {.doc = "exp(x) / sum over d of exp(x); statistics in fp32 (fp64 for fp64)",
          .rule = ".. d -> .. d; full d",
          .flops = [](const Attrs&, const Types& in) { return 3.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .grad = [](const Grad& g) -> Values { return {g.b.softmax_rows_grad(g.out[0], g.dy())}; },
          .kernel = [](const Args& a) { at::_softmax_out(a.out[0], a.in[0], -1, false); },
          .cases = {{.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Real}}}};
}

}    // namespace sheaf
