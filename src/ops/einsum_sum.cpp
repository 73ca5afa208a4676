#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty_like.h>

#include "base/error.h"
#include "ops/builder.h"
#include "ops/matrices.h"

namespace sheaf {

// Operands: x and y of the first product, of the second, ...
OpDef einsum_sum() {
  return {.doc = "the sum of einsums, of its operands two by two, each by its rule: the rules stand side by side, | between them",
          .rule_of =
              [](const Attrs& attrs, const Types&) {
                Rule one = as_one(joined_rules(attrs), Rule::parse(joined_rules(attrs)[0]).out[0]);
                for (const Rule::Factors& out : one.out)
                  SHEAF_CHECK(out == one.out[0], "einsum_sum: {} has several results", attrs.text("rule"));
                one.out.resize(1);
                return one.print();
              },
          .dtype = einsum_dtype,
          .flops =
              [](const Attrs& attrs, const Types& in) {
                double sum = 0;
                for (std::size_t i = 0; i < in.size(); i += 2)
                  sum += flops(op(OpId::einsum), einsum_attrs(attrs, i / 2), {in[i], in[i + 1]});
                return sum;
              },
          .no_gradient = "written after differentiation",
          .kernel =
              [](const Args& a) {
                at::Tensor product;
                for (std::size_t i = 0; i < a.in.size(); i += 2) {
                  at::Tensor& to = i == 0 ? a.out[0] : product = at::empty_like(a.out[0]);
                  contract(contraction(joined_rules(a.attrs)[i / 2]), a.in[i], a.in[i + 1], to);
                  if (i > 0) at::add_out(a.out[0], a.out[0], product);
                }
              },
          .joined = true,
          .exact = true,
          .cases = {{.dims = {{"b", {2}}, {"s", {3}}, {"k", {5}}, {"h0", {2}}, {"d0", {3}}, {"h1", {4}}},
                     .domain = {Real, Real, Real, Real},
                     .attrs = {{"rule", Text("b s h d, h d k -> b s k | b s h, h k -> b s k")}, {"dtype", Text("same")}}}}};
}

}    // namespace sheaf
