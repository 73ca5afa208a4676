#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "ops/builder.h"
#include "ops/routing.h"

namespace sheaf {

// In order of a token's choices, in fp32 for 16 bits: the same sum wherever the rows lie.
static void combine_kernel(const Args& a) {
  const at::Tensor rows = as_rows(a.in[0]), slot = a.in[1].reshape({-1});
  at::Tensor out = as_tokens(a.out[0]);
  const std::int64_t k = a.attrs.integer("k"), tokens = out.size(0), n = rows.size(0);
  if (n == 0) return void(out.zero_());
  at::Tensor row = at::full({tokens * k}, -1, slot.options().dtype(at::kLong));    // of a slot
  row.index_put_({slot.to(at::kLong)}, at::arange(n, row.options()));
  row = row.view({tokens, k});
  const bool wide = out.scalar_type() != at::kBFloat16 && out.scalar_type() != at::kHalf;
  at::Tensor sum = wide ? out : at::zeros(out.sizes(), out.options().dtype(at::kFloat));
  if (wide) sum.zero_();
  for (std::int64_t j = 0; j < k; ++j) {
    const at::Tensor from = row.select(1, j);
    at::Tensor term = rows.index_select(0, from.clamp_min(0));
    if (n < tokens * k) term.masked_fill_(from.lt(0).unsqueeze(1), 0);
    sum.add_(term);
  }
  if (!wide) out.copy_(sum);
}

OpDef combine() {
  return {.doc = "the sum of a token's rows; k: choices of a token. The adjoint of dispatch",
          .rule = "e b s .., e b s -> b s ..; linear x",
          .flops = [](const Attrs&, const Types& in) { return static_cast<double>(num_elements(in[0]->stored())); },
          .grad = [](const Grad& g) -> Values {
            return {g.b.dispatch(g.dy(), g.x(1), g.attrs.integer("k")), {}};
          },
          .no_gradient = "slot: decisions",
          .kernel = combine_kernel,
          .meaning = [](const Args& a) { a.out[0].copy_(where_chosen(a.in[0], a.in[1]).sum(0)); },
          .cases = {{.dims = {{"e", {5}}, {"b", {2}}, {"s", {3}}, {"..", {4}}, {"k", {2}}},
                     .domain = {Routed, Slot},
                     .attrs = {{"k", Int(2)}}}}};
}

}    // namespace sheaf
