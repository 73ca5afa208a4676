// Contractions of routed tensors with weights of the experts: an einsum for each expert, of its rows. The attribute is einsum's rule, in
// which the letters e b s are the routed ones; the operand `expert` says whose each row is.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "base/error.h"
#include "base/text.h"
#include "ops/builder.h"
#include "ops/matrices.h"
#include "ops/routing.h"

namespace sheaf {
namespace {

using Factors = Rule::Factors;

bool is_routed(const Factors& f) { return f.size() >= 3 && f[0] == "e" && f[1] == "b" && f[2] == "s"; }
// What one expert sees: rows r in place of e b s, a weight without e.
Factors of_one(const Factors& f) {
  Factors out(f.begin() + (is_routed(f) ? 3 : 1), f.end());
  if (is_routed(f)) out.insert(out.begin(), "r");
  return out;
}
std::string text(const Factors& f) { return join(f, " "); }

// In fp32: what a product in 16 bits takes for itself follows no law of the number of rows, which the plan does not know.
at::Tensor wide(const Contraction& c, const at::Tensor& x, const at::Tensor& y, const at::Tensor& out) {
  at::Tensor product = at::empty(out.sizes(), out.options().dtype(at::kFloat));
  contract(c, x.to(at::kFloat), y.to(at::kFloat), product);
  return product;
}

void grouped_kernel(const Args& a) {
  const Rule rule = Rule::parse(a.attrs.text("rule"));
  Rule one;
  for (const Factors& f : rule.in) one.in.push_back(of_one(f));
  one.out.push_back(of_one(rule.out[0]));
  const Contraction c = contraction(one);
  const auto rows = rows_of_experts(a.in[2], a.owner_begin, a.owner_end);
  const auto part = [&](const at::Tensor& t, const Factors& f, std::size_t e) {
    return is_routed(f) ? t.select(0, 0).select(0, 0).slice(0, rows[e].first, rows[e].second) : t.select(0, static_cast<std::int64_t>(e));
  };
  const bool narrow = a.in[0].element_size() == 2;
  for (std::size_t e = 0; e < rows.size(); ++e) {
    const at::Tensor x = part(a.in[0], rule.in[0], e), y = part(a.in[1], rule.in[1], e);
    at::Tensor out = part(a.out[0], rule.out[0], e);
    if (out.numel() == 0) continue;
    if (rows[e].first == rows[e].second)
      out.zero_();
    else if (narrow)
      out.copy_(wide(c, x, y, out));
    else
      contract(c, x, y, out);
  }
}

void grouped_meaning(const Args& a) {
  const Rule rule = Rule::parse(a.attrs.text("rule"));
  const auto operand = [&](std::size_t i) { return is_routed(rule.in[i]) ? where_chosen(a.in[i], a.in[2]) : a.in[i]; };
  contract(contraction(rule), operand(0), operand(1), a.out[0]);
  if (is_routed(rule.out[0])) a.out[0].copy_(where_chosen(a.out[0], a.in[2]));
}

// d operand = the contraction of dy with the other operand, as for einsum.
Value gradient_of(const Grad& g, std::size_t i) {
  if (!g.wanted[i]) return {};
  const Rule rule = Rule::parse(g.attrs.text("rule"));
  return g.b.grouped_einsum(g.dy(), g.x(1 - i), g.x(2), text(rule.out[0]) + ", " + text(rule.in[1 - i]) + " -> " + text(rule.in[i]),
                            g.dtype_for(i));
}

Case grouped_case(const char* rule, Domain y, std::vector<std::pair<std::string, Shape>> dims) {
  for (const auto& [letter, extent] : {std::pair("e", 3), std::pair("b", 2), std::pair("s", 4), std::pair("k", 2)})
    dims.push_back({letter, {extent}});
  return {.dims = std::move(dims), .domain = {Routed, std::move(y), Expert}, .attrs = {{"rule", Text(rule)}, {"dtype", Text("same")}}};
}

}    // namespace

OpDef grouped_einsum() {
  return {
      .doc = "einsum of routed tensors and weights per expert; rule: einsum's, in the letters e b s of routed dims; expert: of every row",
      .rule_of =
          [](const Attrs& attrs, const Types&) {
            const std::string& rule = attrs.text("rule");
            const std::size_t arrow = rule.find(" ->");
            if (arrow == std::string::npos) user_error("grouped_einsum: {} is no rule", quote(rule));
            return rule.substr(0, arrow) + ", e b s" + rule.substr(arrow) + "; owner e; linear x y";
          },
      .dtype = einsum_dtype,
      .grad = [](const Grad& g) -> Values {
        return {gradient_of(g, 0), gradient_of(g, 1), {}};
      },
      .no_gradient = "expert: decisions",
      .kernel = grouped_kernel,
      .meaning = grouped_meaning,
      .cases = {grouped_case("e b s h, e g m h -> e b s g m", Real, {{"h", {5}}, {"g", {2}}, {"m", {3}}}),
                grouped_case("e b s m, e b s h -> e m h", Routed, {{"h", {5}}, {"m", {3}}})}};
}

}    // namespace sheaf
