#include <ATen/core/Tensor.h>

#include "ops/builder.h"
#include "ops/routing.h"

namespace sheaf {

OpDef combine_weights() {
  return {
      .doc = "the number of every row at its choice, 0 at choices without a row; k: choices of a token. The adjoint of dispatch_weights",
      .rule = "e b s, e b s -> b s k; linear x",
      .extent_of = [](std::string_view, const Attrs& attrs, const Types&) { return attrs.integer("k"); },
      .flops = [](const Attrs&, const Types&) { return 0.0; },
      .kernel =
          [](const Args& a) {
            a.out[0].zero_();
            if (a.in[0].numel() > 0) a.out[0].view({-1}).index_put_({a.in[1].reshape({-1}).to(at::kLong)}, a.in[0].reshape({-1}));
          },
      .meaning =
          [](const Args& a) {
            for (std::int64_t j = 0; j < a.out[0].size(2); ++j)
              a.out[0].select(2, j).copy_(a.in[0].mul(a.in[1].eq(j + 1).to(a.in[0].scalar_type())).sum(0));
          },
      .cases = {{.dims = {{"e", {5}}, {"b", {2}}, {"s", {3}}, {"k", {2}}}, .domain = {Routed, Slot}, .attrs = {{"k", Int(2)}}}}};
}

}    // namespace sheaf
