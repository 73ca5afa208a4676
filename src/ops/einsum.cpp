// All contractions, transposes and sums: the attribute is the rule. Lowered to one mm or bmm over views where the strides allow.
#include <ATen/core/Tensor.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>

#include <unordered_map>

#include "base/error.h"
#include "base/text.h"
#include "mesh/rule.h"
#include "ops/builder.h"
#include "ops/matrices.h"

namespace sheaf {
namespace {

using Factors = Rule::Factors;
using Dims = std::vector<std::int64_t>;

std::string text(const Factors& factors) { return factors.empty() ? "()" : join(factors, " "); }

void sum_only(const Rule& rule, const at::Tensor& x, const at::Tensor& out_given) {
  at::Tensor out = out_given;
  Factors kept;
  Dims summed;
  for (std::size_t d = 0; d < rule.in[0].size(); ++d)
    if (has(rule.out[0], rule.in[0][d]))
      kept.push_back(rule.in[0][d]);
    else
      summed.push_back(static_cast<std::int64_t>(d));
  if (!summed.empty() && kept == rule.out[0])
    at::sum_out(out, x, summed, false, out.scalar_type());
  else
    out.copy_(aligned(summed.empty() ? x : at::sum(x, summed, false, out.scalar_type()), kept, rule.out[0]));
}

void einsum_kernel(const Args& a) {
  const bool binary = a.in.size() > 1 && a.in[1].defined();
  if (a.in[0].numel() == 0) return void(a.out[0].zero_());    // a rank's piece may be empty
  if (!binary) {
    thread_local std::unordered_map<std::string, Rule> cache;
    Rule& rule = cache[a.attrs.text("rule")];
    if (rule.in.empty()) rule = Rule::parse(a.attrs.text("rule"));
    return sum_only(rule, a.in[0], a.out[0]);
  }
  contract(contraction(a.attrs), a.in[0], a.in[1], a.out[0]);
}

// d operand = einsum(dy, other operand); factors that only this operand has were summed: broadcast over them.
Value gradient_of(const Grad& g, std::size_t i) {
  if (!g.wanted[i]) return {};
  const Rule rule = Rule::parse(g.attrs.text("rule"));
  const bool binary = static_cast<bool>(g.in[1]);
  const Factors& target = rule.in[i];
  const Factors other = binary ? rule.in[1 - i] : Factors{};
  Factors reachable;
  for (const std::string& f : target)
    if (has(rule.out[0], f) || has(other, f)) reachable.push_back(f);
  Value d;
  if (binary && i == 0)
    d = g.b.einsum(g.dy(), g.in[1], text(rule.out[0]) + ", " + text(other) + " -> " + text(reachable), g.dtype_for(i));
  else if (binary)
    d = g.b.einsum(g.dy(), g.in[0], text(rule.out[0]) + ", " + text(other) + " -> " + text(reachable), g.dtype_for(i));
  else if (reachable == rule.out[0])
    d = g.dy();
  else
    d = g.b.einsum(g.dy(), Value{}, text(rule.out[0]) + " -> " + text(reachable), g.dtype_for(i));
  if (reachable == target) return d;
  return g.b.broadcast(d, g.in[i], text(reachable) + ", " + text(target) + " -> " + text(target));
}

Case einsum_case(const char* rule, std::vector<std::pair<std::string, Shape>> dims, bool unary = false) {
  return {.dims = std::move(dims),
          .domain = {Real, Real},
          .attrs = {{"rule", Text(rule)}, {"dtype", Text("same")}},
          .absent = unary ? std::vector<std::size_t>{1} : std::vector<std::size_t>{}};
}

}    // namespace

DType einsum_dtype(const Attrs& attrs, const Types& in, std::size_t) {
  if (attrs.text("dtype") == "same") return in[0]->dtype;
  const auto dtype = dtype_from_name(attrs.text("dtype"));
  if (!dtype) user_error("einsum: no dtype '{}'", attrs.text("dtype"));
  return *dtype;
}

void contract(const Contraction& c, const at::Tensor& x_given, const at::Tensor& y_given, const at::Tensor& out_given) {
  if (x_given.numel() == 0 || y_given.numel() == 0) return void(out_given.zero_());    // a rank's piece may be empty
  const at::Tensor x = c.x_only.empty() ? x_given : at::sum(x_given, c.x_only), y = c.y_only.empty() ? y_given : at::sum(y_given, c.y_only);
  at::Tensor out = out_given;
  if (!c.k.empty())
    multiply_matrices(c, x, y, out, x.scalar_type(), [](at::Tensor& o, const at::Tensor& a, const at::Tensor& b) {
      a.dim() == 3 ? at::bmm_out(o, a, b) : at::mm_out(o, a, b);
    });
  else if (out.scalar_type() == x.scalar_type())
    at::mul_out(out, aligned(x, c.x, c.out), aligned(y, c.y, c.out));
  else
    out.copy_(at::mul(aligned(x, c.x, c.out), aligned(y, c.y, c.out)));
}

OpDef einsum() {
  return {.doc = "sum of products over the factors that the output lacks; dtype: of the result, `same` as x",
          .rule_of = [](const Attrs& attrs,
                        const Types& in) { return attrs.text("rule") + (in.size() > 1 && in[1] ? "; linear x y" : "; linear x"); },
          .dtype = einsum_dtype,
          .grad = [](const Grad& g) -> Values {
            return {gradient_of(g, 0), g.in[1] ? gradient_of(g, 1) : Value{}};
          },
          .kernel = einsum_kernel,
          .exact = true,
          .cases = {einsum_case("b s k, h r d k -> b s h r d", {{"b", {2}}, {"s", {3}}, {"k", {5}}, {"h", {2}}, {"r", {3}}, {"d", {2}}}),
                    einsum_case("b s h r d, k h r d -> b s k", {{"b", {2}}, {"s", {3}}, {"k", {5}}, {"h", {2}}, {"r", {3}}, {"d", {2}}}),
                    einsum_case("e t k, e n k -> e t n", {{"e", {3}}, {"t", {4}}, {"k", {5}}, {"n", {2}}}),
                    einsum_case("t e k, n k e -> e n t", {{"e", {3}}, {"t", {4}}, {"k", {5}}, {"n", {2}}}),
                    einsum_case("b s d, b s -> b s d", {{"b", {2}}, {"s", {3}}, {"d", {4}}}),
                    einsum_case("a b c, b d -> a d", {{"a", {2}}, {"b", {3}}, {"c", {4}}, {"d", {5}}}),
                    einsum_case("a b c -> c a", {{"a", {2}}, {"b", {3}}, {"c", {4}}}, true),
                    einsum_case("a b -> ()", {{"a", {3}}, {"b", {5}}}, true)}};
}

}    // namespace sheaf
