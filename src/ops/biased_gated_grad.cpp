#include "ops/gated_math.h"
#include "ops/parts.h"

namespace sheaf {

OpDef biased_gated_grad() {
  return {.doc = "gradient of biased_gated with respect to x; of the biases it is the sum of an expert's rows of that",
          .rule_of =
              [](const Attrs& attrs, const Types&) {
                const auto [x, y, rows, bias] = gated_letters(attrs);
                return x + ", " + bias + ", e b s, " + y + " -> " + x + "; full g; owner e; linear dy";
              },
          .flops = [](const Attrs&, const Types& in) { return 6.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::biased_gated_grad>,
          .meaning = parts_meaning<OpId::biased_gated_grad>,
          .parts = "h = add_expert_bias x, bias, expert; dx = gated_grad h, dy {rule, activation, limit} -> dx",
          .cases = {{.dims = {{"e", {3}}, {"b", {2}}, {"s", {2}}, {"k", {2}}, {"g", {2}}, {"m", {5}}},
                     .domain = {Routed, Real, Expert, Routed},
                     .attrs = {{"rule", Text("e b s g m -> e b s m")}, {"activation", Text("silu")}, {"limit", 0.0}}},
                    {.dims = {{"e", {3}}, {"b", {2}}, {"s", {3}}, {"k", {2}}, {"g", {2}}, {"m", {4}}},
                     .domain = {Routed, Real, Expert, Routed},
                     .attrs = {{"rule", Text("e b s m g -> e b s m")}, {"activation", Text("clamped_swiglu")}, {"limit", 0.75}}}}};
}

}    // namespace sheaf
