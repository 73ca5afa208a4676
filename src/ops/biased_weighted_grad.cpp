#include "ops/contraction.h"
#include "ops/parts.h"

namespace sheaf {

OpDef biased_weighted_grad() {
  return {.doc =
              "gradients of biased_weighted: dw, of the dtype that the attribute says, and dx; of the biases it is the sum of an "
              "expert's rows of that",
          .rule = "e b s h, e h, e b s, e b s, e b s h -> e b s, e b s h; owner e; linear dy",
          .dtype = [](const Attrs& attrs, const Types& in, std::size_t i) { return i == 0 ? einsum_dtype(attrs, in, i) : in[0]->dtype; },
          .flops = [](const Attrs&, const Types& in) { return 4.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::biased_weighted_grad>,
          .meaning = parts_meaning<OpId::biased_weighted_grad>,
          .parts =
              "h = add_expert_bias x, bias, expert; dw = einsum dy, h {e b s k, e b s k -> e b s; dtype}; "
              "dx = einsum dy, w {e b s k, e b s -> e b s k; dtype=same} -> dw dx",
          .cases = {{.dims = {{"e", {3}}, {"b", {2}}, {"s", {4}}, {"k", {2}}, {"h", {5}}},
                     .domain = {Routed, Real, Expert, Routed, Routed},
                     .attrs = {{"dtype", Text("same")}}}}};
}

}    // namespace sheaf
