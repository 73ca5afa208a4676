#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "ops/parts.h"
#include "runtime/interpret.h"

namespace sheaf {
namespace {

// An odd constant from a name: which operand, which output, which attributes.
std::int64_t salt(std::string_view text) { return static_cast<std::int64_t>(hash_text(text) | 1); }

// A fixed polynomial map of Z/2^64 that is not linear. A loop: tests spend their time here, on small tensors.
at::Tensor mix(const at::Tensor& x, std::int64_t salt) {
  at::Tensor out = x.clone(at::MemoryFormat::Contiguous);
  auto* const p = static_cast<std::uint64_t*>(out.data_ptr());
  for (std::int64_t i = 0; i < out.numel(); ++i) {
    const std::uint64_t y = p[i] * static_cast<std::uint64_t>(salt) + static_cast<std::uint64_t>(salt >> 7);
    p[i] += y * y + y * 0x1f123bb5;
  }
  return out;
}

// x with its dims in the order of `joint`, size 1 where it lacks a factor; a factor that is not in `joint` has extent 1.
at::Tensor aligned(at::Tensor x, Rule::Factors from, const Rule::Factors& joint) {
  for (std::size_t d = from.size(); d-- > 0;)
    if (!has(joint, from[d])) x = x.select(static_cast<std::int64_t>(d), 0), from.erase(from.begin() + static_cast<std::ptrdiff_t>(d));
  std::vector<std::int64_t> order;
  for (const std::string& f : joint)
    if (has(from, f)) order.push_back(dim_of(from, f));
  at::Tensor view = x.permute(order);
  for (std::size_t d = 0; d < joint.size(); ++d)
    if (!has(from, joint[d])) view = view.unsqueeze(static_cast<std::int64_t>(d));
  return view;
}

bool is_gone(const std::string& f, const Rule& rule, std::size_t output) { return rule.is_full(f) && !has(rule.out[output], f); }

// Every element knows its whole row: its own value plus the position-weighted sum over the `full` factors. Those that the output lacks are
// summed right here, where each operand is whole, and not over all factors together: attention has seven of them.
at::Tensor with_row(const at::Tensor& x, const Rule::Factors& factors, const Rule& rule, std::size_t output) {
  at::Tensor out = x;
  for (std::size_t d = 0; d < factors.size(); ++d) {
    if (!rule.is_full(factors[d])) continue;
    const auto dim = static_cast<std::int64_t>(d);
    std::vector<std::int64_t> shape(factors.size(), 1);
    shape[d] = x.size(dim);
    const at::Tensor weight = at::arange(3, 2 * x.size(dim) + 2, 2, at::kLong).view(shape);
    const at::Tensor weighted = out.mul(weight), row = weighted.mul(weight).sum({dim}, true);
    out = is_gone(factors[d], rule, output) ? row : weighted.add(row);
  }
  return out;
}

}    // namespace

void integer_kernel(const OpDef& op, const Rule& rule, const Args& args) {
  if (!op.parts.empty()) return run_parts(op, args, integer_kernel, true);
  if (op.meaning) return op.meaning(args);
  if (op.exact) return op.kernel(args);
  std::vector<std::size_t> present;
  for (std::size_t i = 0; i < args.in.size(); ++i)
    if (args.in[i].defined()) present.push_back(i);
  SHEAF_CHECK(present.size() == rule.in.size(), "{}: {} operands for the rule {}", op.name, present.size(), rule.print());
  const auto listed = [&](const std::vector<std::string>& names, std::size_t i) {
    return std::find(names.begin(), names.end(), std::string(op.operands[std::min(present[i], op.operands.size() - 1)])) != names.end();
  };
  std::string attributes;
  for (const auto& [name, value] : args.attrs.entries()) attributes += name + "=" + print(Attrs{{name, value}});
  for (std::size_t o = 0; o < args.out.size(); ++o) {
    Rule::Factors joint;
    std::vector<std::int64_t> extents;
    for (std::size_t i = 0; i < present.size(); ++i)
      for (std::size_t d = 0; d < rule.in[i].size(); ++d)
        if (const std::string& f = rule.in[i][d]; !has(joint, f) && !is_gone(f, rule, o))
          joint.push_back(f), extents.push_back(args.in[present[i]].size(static_cast<std::int64_t>(d)));
    const std::string key = fmt::format("{}.{}.{}", op.name, o, attributes);
    at::Tensor nonlinear, product, sum;
    for (std::size_t i = 0; i < present.size(); ++i) {
      const at::Tensor x = aligned(with_row(args.in[present[i]].to(at::kLong), rule.in[i], rule, o), rule.in[i], joint);
      const std::int64_t s = salt(fmt::format("{}.{}", key, i));
      if (listed(rule.linear, i))
        product = product.defined() ? product.mul(x) : x;
      else if (listed(rule.add, i))
        sum = sum.defined() ? sum.add(x.mul(s)) : x.mul(s);
      else
        nonlinear = nonlinear.defined() ? nonlinear.add(mix(x, s)) : mix(x, s);
    }
    at::Tensor y = mix(nonlinear.defined() ? nonlinear : at::zeros({}, at::kLong), salt(key));
    if (product.defined()) y = y.mul(product);
    if (sum.defined()) y = y.mul(sum);
    y = y.expand(extents);
    std::vector<std::int64_t> reduced;
    Rule::Factors kept;
    for (std::size_t d = 0; d < joint.size(); ++d)
      if (has(rule.out[o], joint[d]))
        kept.push_back(joint[d]);
      else
        reduced.push_back(static_cast<std::int64_t>(d));
    if (!reduced.empty()) y = y.sum(reduced);
    args.out[o].copy_(aligned(y, kept, rule.out[o]));
  }
}

}    // namespace sheaf
