#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

// m: row_max, s: sum_exp, p: pick of the logits. Cross-entropy in pieces, so that the vocabulary may be sharded.
OpDef nll() {
  return {.doc = "m + log s - p where the label is >= 0, else 0: negative log-likelihood of a token, in nats",
          .rule = ".., .., .., .. -> ..",
          .grad = [](const Grad& g) -> Values {
            const Results d = g.b.nll_grad(g.x(0), g.x(1), g.x(2), g.x(3), g.dy());
            return {d[0], d[1], d[2], {}};
          },
          .kernel = [](const Args& a) { a.out[0].copy_(a.in[1].log().add_(a.in[0]).sub_(a.in[2])).masked_fill_(a.in[3].lt(0), 0); },
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real, Positive, Real, Label("..0")}}}};
}

}    // namespace sheaf
