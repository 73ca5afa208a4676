#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

OpDef unchunk() {
  return {.doc = "the tensor whose chunks the operands are, in order: rows in b pieces, tokens in s",
          .rule_of =
              [](const Attrs&, const Types& in) {
                std::string dims;
                for (std::size_t d = 2; d < in[0]->shape.size(); ++d) dims += " d" + std::to_string(d);
                std::string operands;
                for (std::size_t i = 0; i < in.size(); ++i) operands += (i ? ", b s" : "b s") + dims;
                return operands + " -> c t" + dims + "; full b s c t";
              },
          .extent_of =
              [](std::string_view factor, const Attrs& attrs, const Types& in) {
                const bool rows = factor == "c";
                return in[0]->shape[rows ? 0 : 1] * attrs.integer(rows ? "b" : "s");
              },
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .no_gradient = "written after differentiation",
          .kernel =
              [](const Args& a) {
                const std::int64_t s = a.attrs.integer("s"), rows = a.in[0].size(0), tokens = a.in[0].size(1);
                for (std::size_t i = 0; i < a.in.size(); ++i) {
                  const auto index = static_cast<std::int64_t>(i);
                  a.out[0].narrow(0, index / s * rows, rows).narrow(1, index % s * tokens, tokens).copy_(a.in[i]);
                }
              },
          .exact = true,
          .view = true,
          .cases = {{.dims = {{"b", {2}}, {"s", {3}}, {"d2", {4}}},
                     .domain = {Real, Real, Real, Real},
                     .attrs = {{"b", Int(2)}, {"s", Int(2)}}}}};
}

}    // namespace sheaf
