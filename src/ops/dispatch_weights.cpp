#include <ATen/ops/index_select.h>

#include "ops/builder.h"
#include "ops/routing.h"

namespace sheaf {

OpDef dispatch_weights() {
  return {.doc = "the weight of every row's choice: they travel with the rows, so that combine is a plain sum",
          .rule = "b s k, e b s -> e b s; full k; linear w",
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .grad = [](const Grad& g) -> Values {
            return {g.b.combine_weights(g.dy(), g.x(1), g.b.extent(g.x(0), 2)), {}};
          },
          .no_gradient = "slot: decisions",
          .kernel =
              [](const Args& a) {
                at::Tensor out = a.out[0].view({-1});
                if (out.numel() > 0) at::index_select_out(out, a.in[0].reshape({-1}), 0, a.in[1].reshape({-1}));
              },
          .meaning =
              [](const Args& a) {
                const std::int64_t k = a.in[0].size(2);
                a.out[0].zero_();
                for (std::int64_t j = 0; j < k; ++j)
                  a.out[0].add_(a.in[0].select(2, j).unsqueeze(0).mul(a.in[1].eq(j + 1).to(a.in[0].scalar_type())));
              },
          .cases = {{.dims = {{"e", {5}}, {"b", {2}}, {"s", {3}}, {"k", {2}}}, .domain = {Real, Slot}}}};
}

}    // namespace sheaf
