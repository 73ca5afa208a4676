#include "ops/gated_math.h"
#include "ops/parts.h"

namespace sheaf {

OpDef biased_gated() {
  return {.doc = "gated(x + bias of the expert of its row)",
          .rule_of =
              [](const Attrs& attrs, const Types&) {
                const auto [x, y, rows, bias] = gated_letters(attrs);
                return x + ", " + bias + ", e b s -> " + y + "; full g; owner e";
              },
          .flops = [](const Attrs&, const Types& in) { return 3.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::biased_gated>,
          .meaning = parts_meaning<OpId::biased_gated>,
          .parts = "h = add_expert_bias x, bias, expert; y = gated h {rule, activation, limit} -> y",
          .cases = {{.dims = {{"e", {3}}, {"b", {2}}, {"s", {2}}, {"k", {2}}, {"g", {2}}, {"m", {5}}},
                     .domain = {Routed, Real, Expert},
                     .attrs = {{"rule", Text("e b s g m -> e b s m")}, {"activation", Text("silu")}, {"limit", 0.0}}},
                    {.dims = {{"e", {3}}, {"b", {2}}, {"s", {3}}, {"k", {2}}, {"g", {2}}, {"m", {4}}},
                     .domain = {Routed, Real, Expert},
                     .attrs = {{"rule", Text("e b s m g -> e b s m")}, {"activation", Text("clamped_swiglu")}, {"limit", 0.75}}}}};
}

}    // namespace sheaf
