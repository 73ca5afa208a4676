#pragma once
// What the portable kernels of attention and attention_grad share: scores of one batch row under the mask. ATen headers: op files only.
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>

#include <limits>

#include "ir/op.h"

namespace sheaf {

struct AttentionDims {
  std::int64_t hk, r, s, u;
};

// [s hk r d] -> [hk, r s, d], and back into `out`.
inline at::Tensor heads_first(const at::Tensor& q, at::ScalarType dtype) {
  return q.permute({1, 2, 0, 3}).to(dtype).reshape({q.size(1), q.size(2) * q.size(0), q.size(3)});
}
inline void heads_last(const at::Tensor& x, const at::Tensor& out) {
  out.copy_(x.view({out.size(1), out.size(2), out.size(0), out.size(3)}).permute({2, 0, 1, 3}));
}

// scale q k^T with -inf where a query may not look: [hk, r s, u]. k is [u hk d]. doc_q[s], doc_k[u] may be undefined.
inline at::Tensor masked_scores(const at::Tensor& q_hd, const at::Tensor& k, const at::Tensor& doc_q, const at::Tensor& doc_k,
                                const Attrs& attrs, const AttentionDims& n) {
  at::Tensor scores = at::bmm(q_hd, k.permute({1, 2, 0}).to(q_hd.scalar_type())).mul_(attrs.number("scale"));
  at::Tensor hidden;    // [s, u]
  const auto hide = [&](const at::Tensor& where) { hidden = hidden.defined() ? hidden.logical_or(where) : where; };
  const at::Tensor i = at::arange(n.s, k.options().dtype(at::kLong)).unsqueeze(1),
                   j = at::arange(n.u, k.options().dtype(at::kLong)).unsqueeze(0);
  if (attrs.flag("causal")) hide(j.gt(i));
  if (attrs.integer("window") > 0) hide(j.le(i.sub(attrs.integer("window"))));
  if (doc_q.defined()) hide(doc_q.unsqueeze(1).ne(doc_k.unsqueeze(0)));
  if (hidden.defined()) scores.view({n.hk, n.r, n.s, n.u}).masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  return scores;
}

// The dtype that softmax is computed in.
inline at::ScalarType attention_dtype(const at::Tensor& q) { return q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

// Factors of attention's operands, with the optional ones where they are given.
std::string attention_rule(const Types& in, bool gradient);
double attention_flops(const Attrs& attrs, const Types& in);    // of the two products of the forward, causal halved, window counted

}    // namespace sheaf
