#include "base/error.h"
#include "ops/builder.h"
#include "ops/matrices.h"

namespace sheaf {

// Operands: x, then what it is multiplied with.
OpDef einsum_each() {
  return {.doc = "einsum of its first operand with each of the others, each by its rule: the rules stand side by side, | between them",
          .rule_of =
              [](const Attrs& attrs, const Types&) {
                Rule one = as_one(joined_rules(attrs), Rule::parse(joined_rules(attrs)[0]).in[0]);
                for (std::size_t i = one.in.size() - 2; i > 0; i -= 2) {
                  SHEAF_CHECK(one.in[i] == one.in[0], "einsum_each: {} has several first operands", attrs.text("rule"));
                  one.in.erase(one.in.begin() + static_cast<std::ptrdiff_t>(i));
                }
                return one.print();
              },
          .dtype = einsum_dtype,
          .flops =
              [](const Attrs& attrs, const Types& in) {
                double sum = 0;
                for (std::size_t i = 1; i < in.size(); ++i) sum += flops(op(OpId::einsum), einsum_attrs(attrs, i - 1), {in[0], in[i]});
                return sum;
              },
          .no_gradient = "written after differentiation",
          .kernel =
              [](const Args& a) {
                for (std::size_t i = 0; i < a.out.size(); ++i)
                  contract(contraction(joined_rules(a.attrs)[i]), a.in[0], a.in[i + 1], a.out[i]);
              },
          .joined = true,
          .exact = true,
          .cases = {{.dims = {{"b", {2}}, {"s", {3}}, {"k", {5}}, {"h0", {2}}, {"d0", {3}}, {"h1", {4}}},
                     .domain = {Real, Real, Real},
                     .attrs = {{"rule", Text("b s k, h d k -> b s h d | b s k, h k -> b s h")}, {"dtype", Text("same")}}}}};
}

}    // namespace sheaf
