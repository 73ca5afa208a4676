#include <ATen/core/Tensor.h>
#include <ATen/ops/index_select.h>

#include "ops/builder.h"

namespace sheaf {

// A rank that holds rows [begin, begin + n) of the table answers for those ids only; the others give 0, so the result is partial.
OpDef embedding() {
  return {.doc = "y[.., k] = table[ids[..], k]; the row padding_id (-1: none) gets no gradient",
          .rule = "v k, .. -> .. k; owner v; linear table",
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .grad = [](const Grad& g) -> Values {
            return {g.b.embedding_grad(g.dy(), g.x(1), g.x(0), g.attrs.integer("padding_id")), {}};
          },
          .kernel =
              [](const Args& a) {
                if (a.out[0].numel() == 0) return;
                const std::int64_t n = a.in[0].size(0);
                const at::Tensor local = a.in[1].flatten().to(at::kLong).sub(a.owner_begin);
                at::Tensor rows = a.out[0].view({-1, a.out[0].size(-1)});
                if (n == 0) return void(rows.zero_());
                at::index_select_out(rows, a.in[0], 0, local.clamp(0, n - 1));
                rows.masked_fill_(local.lt(0).logical_or(local.ge(n)).unsqueeze(1), 0);
              },
          .exact = true,
          .cases = {{.dims = {{"v", {7}}, {"k", {3}}, {"..", {2, 5}}}, .domain = {Real, Index("v")}, .attrs = {{"padding_id", Int(-1)}}}}};
}

}    // namespace sheaf
