#include "base/text.h"
#include "mesh/rule.h"
#include "ops/parts.h"

namespace sheaf {

// The rule of the op alone: cut a factor that is summed, and every rank would add acc. Parts may be cut there where acc is partial as well.
static std::string einsum_add_rule(const Attrs& attrs, const Types&) {
  const Rule rule = Rule::parse(attrs.text("rule"));
  const auto text = [](const Rule::Factors& f) { return f.empty() ? std::string("()") : join(f, " "); };
  Rule::Factors summed;
  for (const Rule::Factors& in : rule.in)
    for (const std::string& f : in)
      if (!has(rule.out[0], f)) summed.push_back(f);
  return text(rule.out[0]) + ", " + attrs.text("rule") + (summed.empty() ? "" : "; full " + join(summed, " "));
}

OpDef einsum_add() {
  return {.doc = "acc + einsum(x, y): a product that is added to what is there",
          .rule_of = einsum_add_rule,
          .flops =
              [](const Attrs& attrs, const Types& in) {
                return flops(op(OpId::einsum), attrs, {in[1], in[2]});
              },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::einsum_add>,
          .parts = "p = einsum x, y {rule, dtype}; sum = add acc, p -> sum",
          .in_place = true,
          .cases = {{.dims = {{"b", {2}}, {"s", {3}}, {"k", {5}}, {"n", {4}}},
                     .domain = {Real},
                     .attrs = {{"rule", Text("b s n, b s k -> n k")}, {"dtype", Text("same")}}}}};
}

}    // namespace sheaf
