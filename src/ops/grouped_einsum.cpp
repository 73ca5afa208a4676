// Contractions of routed tensors with weights of the experts: an einsum for each expert, of its rows. The attribute is einsum's rule, in
// which the letters e b s are the routed ones; the operand `expert` says whose each row is.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>

#include <algorithm>

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

// The rows of each expert of this rank: rows are sorted by expert.
std::vector<std::pair<std::int64_t, std::int64_t>> rows_of_experts(const at::Tensor& expert, std::int64_t begin, std::int64_t end) {
  const at::Tensor host = expert.reshape({-1}).to(at::kCPU).to(at::kInt);
  const auto* const first = host.data_ptr<std::int32_t>();
  std::vector<std::pair<std::int64_t, std::int64_t>> rows;
  std::int64_t at = 0;
  for (std::int64_t e = begin; e < end; ++e) {
    const std::int64_t to = std::upper_bound(first + at, first + host.numel(), static_cast<std::int32_t>(e)) - first;
    rows.emplace_back(at, to);
    at = to;
  }
  return rows;
}

// In fp32: what a product in 16 bits takes for itself follows no law of the number of rows, which the plan does not know.
at::Tensor wide(const Contraction& c, const at::Tensor& x, const at::Tensor& y, const at::Tensor& out) {
  at::Tensor product = at::empty(out.sizes(), out.options().dtype(at::kFloat));
  contract(c, x.to(at::kFloat), y.to(at::kFloat), product);
  return product;
}

void grouped_kernel(const Args& a) {
  const Rule rule = Rule::parse(a.attrs.text("rule"));
  const bool binary = a.in[1].defined();
  Rule one;
  for (const Factors& f : rule.in) one.in.push_back(of_one(f));
  one.out.push_back(of_one(rule.out[0]));
  const Contraction c = binary ? contraction(one) : Contraction{};
  const auto rows = rows_of_experts(a.in[2], a.owner_begin, a.owner_end);
  const auto part = [&](const at::Tensor& t, const Factors& f, std::size_t e) {
    return is_routed(f) ? t.select(0, 0).select(0, 0).slice(0, rows[e].first, rows[e].second) : t.select(0, static_cast<std::int64_t>(e));
  };
  const bool narrow = a.in[0].element_size() == 2;
  for (std::size_t e = 0; e < rows.size(); ++e) {
    const at::Tensor x = part(a.in[0], rule.in[0], e);
    at::Tensor out = part(a.out[0], rule.out[0], e);
    if (out.numel() == 0) continue;
    if (rows[e].first == rows[e].second)
      out.zero_();
    else if (binary && narrow)
      out.copy_(wide(c, x, part(a.in[1], rule.in[1], e), out));
    else if (binary)
      contract(c, x, part(a.in[1], rule.in[1], e), out);
    else if (is_routed(rule.out[0]))
      out.copy_(x.unsqueeze(0).expand_as(out));
    else
      at::sum_out(out, x, {0}, false, out.scalar_type());
  }
}

void grouped_meaning(const Args& a) {
  const Rule rule = Rule::parse(a.attrs.text("rule"));
  const auto operand = [&](std::size_t i) { return is_routed(rule.in[i]) ? where_chosen(a.in[i], a.in[2]) : a.in[i]; };
  if (a.in[1].defined())
    contract(contraction(rule), operand(0), operand(1), a.out[0]);
  else if (is_routed(rule.out[0]))
    a.out[0].copy_(a.in[0].unsqueeze(1).unsqueeze(1).expand_as(a.out[0]));
  else
    a.out[0].copy_(operand(0).sum(at::IntArrayRef{1, 2}));
  if (is_routed(rule.out[0])) a.out[0].copy_(where_chosen(a.out[0], a.in[2]));
}

// d operand = the contraction of dy with the other operand, as for einsum.
Value gradient_of(const Grad& g, std::size_t i) {
  if (!g.wanted[i]) return {};
  const Rule rule = Rule::parse(g.attrs.text("rule"));
  const bool binary = static_cast<bool>(g.x(1));
  const std::string others = binary ? ", " + text(rule.in[1 - i]) : "";
  return g.b.grouped_einsum(g.dy(), binary ? g.x(1 - i) : Value{}, g.x(2), text(rule.out[0]) + others + " -> " + text(rule.in[i]),
                            g.dtype_for(i));
}

Case grouped_case(const char* rule, Domain x, std::optional<Domain> y, std::vector<std::pair<std::string, Shape>> dims) {
  for (const auto& [letter, extent] : {std::pair("e", 3), std::pair("b", 2), std::pair("s", 4), std::pair("k", 2)})
    dims.push_back({letter, {extent}});
  return {.dims = std::move(dims),
          .domain = {x, y.value_or(Real), Expert},
          .attrs = {{"rule", Text(rule)}, {"dtype", Text("same")}},
          .absent = y ? std::vector<std::size_t>{} : std::vector<std::size_t>{1}};
}

}    // namespace

OpDef grouped_einsum() {
  return {.doc =
              "einsum of routed tensors and weights per expert; rule: einsum's, in the letters e b s of routed dims; expert: of every row; "
              "without y: a weight for every row of its expert, or the sum of an expert's rows",
          .rule_of =
              [](const Attrs& attrs, const Types& in) {
                const std::string& rule = attrs.text("rule");
                const std::size_t arrow = rule.find(" ->");
                if (arrow == std::string::npos) user_error("grouped_einsum: {} is no rule", quote(rule));
                return rule.substr(0, arrow) + ", e b s" + rule.substr(arrow) + "; owner e" + (in[1] ? "; linear x y" : "; linear x");
              },
          .dtype = einsum_dtype,
          .grad = [](const Grad& g) -> Values {
            return {gradient_of(g, 0), g.x(1) ? gradient_of(g, 1) : Value{}, {}};
          },
          .no_gradient = "expert: decisions",
          .kernel = grouped_kernel,
          .meaning = grouped_meaning,
          .cases = {grouped_case("e b s h, e g m h -> e b s g m", Routed, Real, {{"h", {5}}, {"g", {2}}, {"m", {3}}}),
                    grouped_case("e b s m, e b s h -> e m h", Routed, Routed, {{"h", {5}}, {"m", {3}}}),
                    grouped_case("e m -> e b s m", Real, {}, {{"m", {3}}}), grouped_case("e b s m -> e m", Routed, {}, {{"m", {3}}})}};
}

}    // namespace sheaf
