#include <ATen/ops/empty.h>

#include <unordered_map>

#include "base/text.h"
#include "ops/matrices.h"

namespace sheaf {
namespace {

using Factors = Rule::Factors;
using Dims = std::vector<std::int64_t>;

// t with dims grouped: one dim per group, as a view; nullopt if the strides of a group do not merge.
std::optional<at::Tensor> grouped(const at::Tensor& t, const Factors& factors, std::initializer_list<const Factors*> groups) {
  Dims sizes, strides;
  for (const Factors* group : groups) {
    std::int64_t size = 1, stride = 1;
    for (std::size_t i = group->size(); i-- > 0;) {
      const std::int64_t d = dim_of(factors, (*group)[i]);
      if (t.size(d) == 1) continue;
      if (size == 1)
        stride = t.stride(d);
      else if (t.stride(d) != stride * size)
        return std::nullopt;
      size *= t.size(d);
    }
    sizes.push_back(size), strides.push_back(size == 1 ? 1 : stride);
  }
  return t.as_strided(sizes, strides, t.storage_offset());
}

at::Tensor grouped_or_copied(const at::Tensor& t, const Factors& factors, std::initializer_list<const Factors*> groups) {
  if (auto view = grouped(t, factors, groups)) return *view;
  Dims order;
  Factors ordered;
  for (const Factors* group : groups)
    for (const std::string& f : *group) order.push_back(dim_of(factors, f)), ordered.push_back(f);
  return *grouped(t.permute(order).contiguous(), ordered, groups);
}

}    // namespace

Contraction contraction(const Rule& rule) {
  Contraction c{.out = rule.out[0]};
  const Factors &x = rule.in[0], &y = rule.in[1];
  for (const std::string& f : c.out) (has(x, f) ? has(y, f) ? c.batch : c.m : c.n).push_back(f);
  const auto keep = [&](const Factors& from, const Factors& other, Factors& kept, Dims& summed) {
    for (std::size_t d = 0; d < from.size(); ++d)
      if (has(c.out, from[d]) || has(other, from[d]))
        kept.push_back(from[d]);
      else
        summed.push_back(static_cast<std::int64_t>(d));
  };
  keep(x, y, c.x, c.x_only);
  keep(y, x, c.y, c.y_only);
  for (const std::string& f : c.x)
    if (has(c.y, f) && !has(c.out, f)) c.k.push_back(f);
  return c;
}

const Contraction& contraction(const std::string& rule) {
  thread_local std::unordered_map<std::string, Contraction> cache;    // rules are few: one per kind of layer
  const auto found = cache.find(rule);
  return found != cache.end() ? found->second : cache.emplace(rule, contraction(Rule::parse(rule))).first->second;
}
const Contraction& contraction(const Attrs& einsum) { return contraction(einsum.text("rule")); }

const std::vector<std::string>& joined_rules(const Attrs& attrs) {
  thread_local std::unordered_map<std::string, std::vector<std::string>> cache;
  std::vector<std::string>& rules = cache[attrs.text("rule")];
  if (rules.empty())
    for (const std::string& rule : split(attrs.text("rule"), '|')) rules.emplace_back(trimmed(rule));
  return rules;
}

Attrs einsum_attrs(const Attrs& joined, std::size_t i) {
  return {{"rule", Text(joined_rules(joined)[i])}, {"dtype", joined.text("dtype")}};
}

Rule as_one(const std::vector<std::string>& rules, const Factors& shared) {
  Rule one;
  for (std::size_t i = 0; i < rules.size(); ++i) {
    Rule rule = Rule::parse(rules[i]);
    for (auto* side : {&rule.in, &rule.out})
      for (Factors& factors : *side)
        for (std::string& f : factors)
          if (!has(shared, f)) one.full.insert(f += std::to_string(i));
    one.in.insert(one.in.end(), rule.in.begin(), rule.in.end());
    one.out.insert(one.out.end(), rule.out.begin(), rule.out.end());
  }
  return one;
}

at::Tensor aligned(const at::Tensor& x, const Factors& from, const Factors& out) {
  Dims order;
  for (const std::string& f : out)
    if (has(from, f)) order.push_back(dim_of(from, f));
  at::Tensor view = x.permute(order);
  for (std::size_t d = 0; d < out.size(); ++d)
    if (!has(from, out[d])) view = view.unsqueeze(static_cast<std::int64_t>(d));
  return view;
}

Matrices matrices(const Contraction& c, const at::Tensor& x, const at::Tensor& y, const at::Tensor& out) {
  const bool batched = !c.batch.empty();
  const auto matrix = [&](const at::Tensor& t, const Factors& f, const Factors& rows, const Factors& columns) {
    return batched ? grouped_or_copied(t, f, {&c.batch, &rows, &columns}) : grouped_or_copied(t, f, {&rows, &columns});
  };
  return {matrix(x, c.x, c.m, c.k), matrix(y, c.y, c.k, c.n),
          batched ? grouped(out, c.out, {&c.batch, &c.m, &c.n}) : grouped(out, c.out, {&c.m, &c.n})};
}

at::Tensor as_output(const Contraction& c, const at::Tensor& product, const at::Tensor& out) {
  Factors order = c.batch;
  order.insert(order.end(), c.m.begin(), c.m.end()), order.insert(order.end(), c.n.begin(), c.n.end());
  Dims sizes;
  for (const std::string& f : order) sizes.push_back(out.size(dim_of(c.out, f)));
  return aligned(product.view(sizes), order, c.out);
}

void multiply_matrices(const Contraction& c, const at::Tensor& x, const at::Tensor& y, const at::Tensor& out, at::ScalarType product_dtype,
                       MatrixProduct product) {
  auto [a, b, view] = matrices(c, x, y, out);
  if (view && out.scalar_type() == product_dtype) return product(*view, a, b);
  Dims sizes = a.sizes().vec();
  sizes.back() = b.size(-1);
  at::Tensor result = at::empty(sizes, out.options().dtype(product_dtype));
  product(result, a, b);
  out.copy_(as_output(c, result, out));
}

}    // namespace sheaf
