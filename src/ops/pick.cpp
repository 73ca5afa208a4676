#include <ATen/core/Tensor.h>
#include <ATen/ops/gather.h>

#include "ops/builder.h"
#include "ops/owned.h"

namespace sheaf {

// A rank that holds columns [begin, begin + n) answers for those labels; other labels and ignored ones (< 0) give 0.
OpDef pick() {
  return {.doc = "y[..] = x[.., labels[..]], 0 where the label is < 0",
          .rule = ".. v, .. -> ..; owner v; linear x",
          .grad = [](const Grad& g) -> Values {
            return {g.b.pick_grad(g.dy(), g.x(1), g.x(0)), {}};
          },
          .kernel =
              [](const Args& a) {
                const std::int64_t n = a.in[0].size(-1);
                if (n == 0) return void(a.out[0].zero_());
                const auto [local, elsewhere] = owned(a.in[1], a.owner_begin, n);
                a.out[0].copy_(at::gather(a.in[0], -1, local.unsqueeze(-1)).squeeze(-1)).masked_fill_(elsewhere, 0);
              },
          .exact = true,
          .cases = {{.dims = {{"..", {2, 3}}, {"v", {7}}}, .domain = {Real, Label("v")}}}};
}

}    // namespace sheaf
