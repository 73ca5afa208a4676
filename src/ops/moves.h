#pragma once
// What the six ops that reshards are lowered to have in common: any number of operands, each moved on its own. Operand i and output i
// denote the same tensor; their placements say what the op does, so it has no attributes. On one rank all of them are the identity.
#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

inline OpDef move_op(std::string_view doc) {
  return {.doc = doc,
          .rule_of =
              [](const Attrs&, const Types& in) {
                std::string operands;
                for (std::size_t i = 0; i < in.size(); ++i) {
                  operands += i ? ", " : "";
                  for (std::size_t d = 0; d < in[i]->shape.size(); ++d) operands += "x" + std::to_string(i) + "_" + std::to_string(d) + " ";
                  if (in[i]->shape.empty()) operands += "()";
                }
                return operands + " -> " + operands + "; linear x";
              },
          .dtype = [](const Attrs&, const Types& in, std::size_t output) { return in[output]->dtype; },
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .no_gradient = "written after differentiation",
          .kernel =
              [](const Args& a) {
                for (std::size_t i = 0; i < a.in.size(); ++i) a.out[i].copy_(a.in[i]);
              },
          .exact = true,
          .cases = {{.dims = {{"x0_0", {3}}, {"x0_1", {5}}}, .domain = {Real}}}};
}

}    // namespace sheaf
