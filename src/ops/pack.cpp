#include "ops/builder.h"
#include "ops/pack_layout.h"

namespace sheaf {

// Storage only: the planner gives the operands consecutive places, each rounded up to kPackGranule elements of zeros.
OpDef pack() {
  return {.doc =
              "the pieces of the operands that lie on a rank, one after the other, flattened, as one value; no copy: a demand on where "
              "they are stored. "
              "extent: of the result",
          .rule_of =
              [](const Attrs&, const Types& in) {
                std::string rule;
                for (std::size_t i = 0; i < in.size(); ++i) {
                  rule += i ? ", " : "";
                  for (std::size_t d = 0; d < in[i]->shape.size(); ++d) rule += "x" + std::to_string(i) + "_" + std::to_string(d) + " ";
                  if (in[i]->shape.empty()) rule += "()";
                }
                return rule + " -> n";
              },
          .extent_of = [](std::string_view, const Attrs& attrs, const Types&) { return attrs.integer("extent"); },
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .cases = {{.dims = {{"x0_0", {3}}, {"x1_0", {5}}}, .domain = {Real, Real}, .attrs = {{"extent", Int(2 * kPackGranule)}}}}};
}

}    // namespace sheaf
