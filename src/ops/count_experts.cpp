#include <ATen/core/Tensor.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>

#include "ops/builder.h"

namespace sheaf {

// Counted in integers: atomic additions on accelerators do not make it vary. fp32, since sums over ranks and products come next.
OpDef count_experts() {
  return {.doc = "how often each of the experts occurs in ids, in fp32",
          .rule = "b s k -> e; full e",
          .extent_of = [](std::string_view, const Attrs& attrs, const Types&) { return attrs.integer("experts"); },
          .dtype = [](const Attrs&, const Types&, std::size_t) { return DType::fp32; },
          .flops = [](const Attrs&, const Types& in) { return static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "a count",
          .kernel =
              [](const Args& a) {
                const at::Tensor ids = a.in[0].flatten().to(at::kLong);
                a.out[0].copy_(at::zeros(a.out[0].sizes(), ids.options()).scatter_add_(0, ids, at::ones_like(ids)));
              },
          .exact = true,
          .cases = {{.dims = {{"b", {2}}, {"s", {5}}, {"k", {3}}, {"e", {4}}}, .domain = {Index("e")}, .attrs = {{"experts", Int(4)}}}}};
}

}    // namespace sheaf
