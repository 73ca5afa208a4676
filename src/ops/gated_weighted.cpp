#include "ops/gated_math.h"
#include "ops/parts.h"

namespace sheaf {

OpDef gated_weighted() {
  return {.doc = "w gated(x): every row of experts times its number",
          .rule_of =
              [](const Attrs& attrs, const Types&) {
                const auto [x, y, rows, bias] = gated_letters(attrs);
                return x + ", " + rows + " -> " + y + "; full g; linear w";
              },
          .flops = [](const Attrs&, const Types& in) { return 2.5 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::gated_weighted>,
          .parts = "a = gated x {rule, activation, limit}; y = einsum a, w {e b s k, e b s -> e b s k; dtype=same} -> y",
          .cases = {{.dims = {{"e", {3}}, {"b", {2}}, {"s", {2}}, {"g", {2}}, {"m", {5}}},
                     .domain = {Real},
                     .attrs = {{"rule", Text("e b s g m -> e b s m")}, {"activation", Text("silu")}, {"limit", 0.0}}},
                    {.dims = {{"e", {2}}, {"b", {2}}, {"s", {3}}, {"g", {2}}, {"m", {4}}},
                     .domain = {Real},
                     .attrs = {{"rule", Text("e b s m g -> e b s m")}, {"activation", Text("clamped_swiglu")}, {"limit", 0.75}}}}};
}

}    // namespace sheaf
