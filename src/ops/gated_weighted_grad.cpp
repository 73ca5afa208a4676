#include "ops/contraction.h"
#include "ops/gated_math.h"
#include "ops/parts.h"

namespace sheaf {

OpDef gated_weighted_grad() {
  return {
      .doc = "gradients of gated_weighted: dx, and dw of the dtype that the attribute says; what is weighted is computed again",
      .rule_of =
          [](const Attrs& attrs, const Types&) {
            const auto [x, y, rows, bias] = gated_letters(attrs);
            return x + ", " + rows + ", " + y + " -> " + x + ", " + rows + "; full g; linear dy";
          },
      .dtype = [](const Attrs& attrs, const Types& in, std::size_t i) { return i == 0 ? in[0]->dtype : einsum_dtype(attrs, in, i); },
      .flops = [](const Attrs&, const Types& in) { return 8.5 * static_cast<double>(num_elements(in[0]->shape)); },
      .no_gradient = "written after differentiation",
      .kernel = parts_kernel<OpId::gated_weighted_grad>,
      .parts =
          "a = gated x {rule, activation, limit}; dw = einsum dy, a {e b s k, e b s k -> e b s; dtype}; "
          "d = einsum dy, w {e b s k, e b s -> e b s k; dtype=same}; dx = gated_grad x, d {rule, activation, limit} -> dx dw",
      .cases = {{.dims = {{"e", {3}}, {"b", {2}}, {"s", {2}}, {"g", {2}}, {"m", {5}}},
                 .domain = {Real},
                 .attrs = {{"rule", Text("e b s g m -> e b s m")}, {"activation", Text("silu")}, {"limit", 0.0}, {"dtype", Text("same")}}},
                {.dims = {{"e", {2}}, {"b", {2}}, {"s", {3}}, {"g", {2}}, {"m", {4}}},
                 .domain = {Real},
                 .attrs = {{"rule", Text("e b s m g -> e b s m")},
                           {"activation", Text("clamped_swiglu")},
                           {"limit", 0.75},
                           {"dtype", Text("same")}}}}};
}

}    // namespace sheaf
