#include <ATen/core/Tensor.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "base/error.h"
#include "ops/builder.h"

namespace sheaf {

// Largest first; equal ones in the order of their indices, so that every rank and every device decides alike.
static at::Tensor descending(const at::Tensor& x) { return std::get<1>(at::sort(x, true, -1, true)); }

// Puts the experts of all but the best `kept` groups below any other. A group is worth the sum of its `top` best experts.
static at::Tensor within_best_groups(const at::Tensor& scores, std::int64_t groups, std::int64_t kept, std::int64_t top) {
  const at::Tensor grouped = scores.unflatten(-1, {groups, scores.size(-1) / groups});
  const at::Tensor worth = std::get<0>(at::sort(grouped, true, -1, true)).slice(-1, 0, top).sum(-1);
  const at::Tensor out = at::zeros(worth.sizes(), worth.options().dtype(at::kBool)).scatter_(-1, descending(worth).slice(-1, kept), true);
  const at::Scalar least = scores.is_floating_point() ? at::Scalar(-std::numeric_limits<double>::infinity())
                                                      : at::Scalar(std::numeric_limits<std::int64_t>::min());
  return grouped.masked_fill(out.unsqueeze(-1), least).flatten(-2);
}

static std::int64_t chosen(std::string_view, const Attrs& attrs, const Types& in) {
  const std::int64_t experts = in[0]->shape.back(), k = attrs.integer("k"), groups = attrs.integer("groups");
  SHEAF_CHECK(k >= 1 && k <= experts, "choose_experts: {} of {} experts", k, experts);
  SHEAF_CHECK(groups == 0 || (groups > 0 && experts % groups == 0), "choose_experts: {} groups of {} experts", groups, experts);
  return k;
}

OpDef choose_experts() {
  return {.doc =
              "the k experts of highest scores + bias, best first, ties by index; groups > 0: only from the kept_groups groups of "
              "experts whose group_top best sum highest (DeepSeek-AI 2024)",
          .rule = ".. e, e -> .. k; full e k",
          .extent_of = chosen,
          .dtype = [](const Attrs&, const Types&, std::size_t) { return DType::i32; },
          .flops = [](const Attrs&, const Types& in) { return static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "a decision",
          .kernel =
              [](const Args& a) {
                at::Tensor scores = a.in[1].defined() ? a.in[0].add(a.in[1]) : a.in[0];
                if (const std::int64_t groups = a.attrs.integer("groups"))
                  scores = within_best_groups(scores, groups, a.attrs.integer("kept_groups"), a.attrs.integer("group_top"));
                a.out[0].copy_(descending(scores).slice(-1, 0, a.attrs.integer("k")));
              },
          .exact = true,
          .cases = {{.dims = {{"..", {2, 3}}, {"e", {5}}},
                     .domain = {Real},
                     .attrs = {{"k", Int(2)}, {"groups", Int(0)}, {"kept_groups", Int(0)}, {"group_top", Int(0)}},
                     .absent = {1}},
                    {.dims = {{"..", {2, 3}}, {"e", {8}}},
                     .domain = {Real, Real},
                     .attrs = {{"k", Int(3)}, {"groups", Int(4)}, {"kept_groups", Int(2)}, {"group_top", Int(2)}}}}};
}

}    // namespace sheaf
