#include <ATen/ops/arange.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "ops/builder.h"
#include "ops/routing.h"

namespace sheaf {

at::Tensor where_chosen(const at::Tensor& x, const at::Tensor& chosen) {
  at::Tensor mask = chosen.gt(0);
  while (mask.dim() < x.dim()) mask = mask.unsqueeze(-1);
  return x.mul(mask.to(x.scalar_type()));
}
at::Tensor as_rows(const at::Tensor& x) { return x.reshape({x.size(2), x.numel() / std::max<std::int64_t>(1, x.size(2))}); }
at::Tensor as_tokens(const at::Tensor& x) {
  const std::int64_t tokens = x.size(0) * x.size(1);
  return x.reshape({tokens, x.numel() / std::max<std::int64_t>(1, tokens)});
}

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

static at::Tensor placed(const Args& a) {
  return a.in[1].defined() ? a.in[1].index_select(0, a.in[0].reshape({-1})).view(a.in[0].sizes()) : a.in[0];
}

// Where experts are cut, rows of other ranks' experts sort behind the own ones; the rows that remain free have slot -1 and the largest
// expert.
static void route_kernel(const Args& a) {
  const at::Tensor ids = placed(a).reshape({-1});
  at::Tensor slot = a.out[0].view({-1}), expert = a.out[1].view({-1});
  const auto far = std::numeric_limits<std::int32_t>::max();
  slot.fill_(-1), expert.fill_(far);
  if (ids.numel() == 0) return;
  const at::Tensor own = ids.ge(a.owner_begin).logical_and(ids.lt(a.owner_end));
  const auto [sorted, order] = at::sort(at::where(own, ids, far), true, 0, false);    // stable: by token among equals
  const std::int64_t n = std::min(slot.size(0), ids.numel());
  slot.narrow(0, 0, n).copy_(at::where(sorted.ne(far), order, -1).narrow(0, 0, n));
  expert.narrow(0, 0, n).copy_(sorted.narrow(0, 0, n));
}

OpDef route() {
  return {.doc =
              "for the chosen experts of every token: slot and expert, routed [experts, b, s] (ops/routing.h); place: where among the "
              "experts each one lies, if not at its own number",
          .rule = "b s k, p -> e b s, e b s; full k p; owner e",
          .extent_of = [](std::string_view, const Attrs& attrs, const Types&) { return attrs.integer("experts"); },
          .dtype = [](const Attrs&, const Types&, std::size_t) { return DType::i32; },
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .no_gradient = "decisions",
          .routed = [](const Attrs&, const Types& in) { return in[0]->shape.back(); },
          .kernel = route_kernel,
          .meaning =
              [](const Args& a) {
                const std::int64_t k = a.in[0].size(2);
                const at::Tensor ids = placed(a);
                for (std::int64_t e = 0; e < a.out[0].size(0); ++e) {
                  const at::Tensor here = ids.eq(e + a.owner_begin);    // at most one of a token's choices
                  a.out[0].select(0, e).copy_(here.to(at::kLong).mul(at::arange(1, k + 1, at::kLong)).sum(-1));
                  a.out[1].select(0, e).copy_(here.any(-1));
                }
              },
          .cases = {{.dims = {{"b", {2}}, {"s", {3}}, {"k", {2}}, {"e", {5}}},
                     .domain = {Choice("e")},
                     .attrs = {{"experts", Int(5)}},
                     .absent = {1}}}};
}

}    // namespace sheaf
