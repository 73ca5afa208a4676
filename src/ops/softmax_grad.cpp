#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>

#include "ops/builder.h"
#include "ops/owned.h"

namespace sheaf {

// What fuse_softmax_grad makes of exp_weighted + pick_grad: the gradient of cross-entropy in one pass over the logits.
OpDef softmax_grad() {
  return {.doc = "ds exp(x - m) + dp where v = label: gradient of cross-entropy with respect to the logits",
          .rule = ".. v, .., .., .., .. -> .. v; owner v; add ds dp",
          .kernel =
              [](const Args& a) {
                const std::int64_t n = a.in[0].size(-1);
                at::mul_out(a.out[0], a.in[0].sub(a.in[1].unsqueeze(-1)).exp_(), a.in[2].unsqueeze(-1));
                if (n == 0) return;
                const auto [local, elsewhere] = owned(a.in[4], a.owner_begin, n);
                a.out[0].scatter_add_(-1, local.unsqueeze(-1), a.in[3].masked_fill(elsewhere, 0).to(a.out[0].scalar_type()).unsqueeze(-1));
              },
          .in_place = true,
          .cases = {{.dims = {{"..", {2, 3}}, {"v", {7}}}, .domain = {Real, Real, Real, Real, Label("v")}}}};
}

}    // namespace sheaf
