#include <ATen/ops/exp.h>

#include "ops/attention_math.h"
#include "ops/builder.h"

namespace sheaf {

// With p = exp(scores - lse) and delta = sum over e of dy o:  dv = p^T dy,  ds = p (dy v^T - delta),  dq = scale ds k,  dk = scale ds^T q.
// Unchanged with sinks, whose gradient is -sum over b, s of exp(sink - lse) delta.
static void attention_grad_kernel(const Args& a) {
  const at::Tensor &q = a.in[0], &k = a.in[1], &v = a.in[2], &o = a.in[3], &lse = a.in[4], &dy = a.in[5], &sinks = a.in[8];
  const auto optional = [&](std::size_t i, std::int64_t row) { return a.in[i].defined() ? a.in[i].select(0, row) : at::Tensor(); };
  const AttentionDims n{q.size(2), q.size(3), q.size(1), k.size(1)};
  const auto dtype = attention_dtype(q);
  const double scale = a.attrs.number("scale");
  if (sinks.defined()) a.out[3].zero_();
  for (std::int64_t row = 0; row < q.size(0); ++row) {
    const at::Tensor q_hd = heads_first(q.select(0, row), dtype), dy_he = heads_first(dy.select(0, row), dtype);
    const at::Tensor lse_h = lse.select(0, row).permute({1, 2, 0}).to(dtype).reshape({n.hk, n.r * n.s, 1});
    const at::Tensor p = masked_scores(q_hd, k.select(0, row), optional(6, row), optional(7, row), a.attrs, n).sub_(lse_h).exp_();
    const at::Tensor delta = heads_first(o.select(0, row), dtype).mul_(dy_he).sum(-1, true);
    a.out[2].select(0, row).copy_(at::bmm(p.transpose(1, 2), dy_he).permute({1, 0, 2}));
    const at::Tensor ds = at::bmm(dy_he, v.select(0, row).permute({1, 2, 0}).to(dtype)).sub_(delta).mul_(p).mul_(scale);
    heads_last(at::bmm(ds, k.select(0, row).permute({1, 0, 2}).to(dtype)), a.out[0].select(0, row));
    a.out[1].select(0, row).copy_(at::bmm(ds.transpose(1, 2), q_hd).permute({1, 0, 2}));
    if (sinks.defined()) {
      const at::Tensor weight = sinks.to(dtype).view({n.hk, n.r, 1}).sub(lse_h.view({n.hk, n.r, n.s})).exp_();
      a.out[3].sub_(weight.mul_(delta.view({n.hk, n.r, n.s})).sum(-1));
    }
  }
}

OpDef attention_grad() {
  return {.doc = "gradients of attention: dq, dk, dv, and dsinks where there are sinks (Dao 2023)",
          .rule_of = [](const Attrs&, const Types& in) { return attention_rule(in, true); },
          .dtype = [](const Attrs&, const Types& in,
                      std::size_t i) { return i == 3 && size_bytes(in[0]->dtype) == 2 ? DType::fp32 : in[0]->dtype; },
          .flops = [](const Attrs& attrs, const Types& in) { return 2.5 * attention_flops(attrs, in); },
          .kernel = attention_grad_kernel,
          .cases = {{.dims = {{"b", {2}}, {"s", {5}}, {"u", {5}}, {"hk", {3}}, {"r", {2}}, {"d", {4}}, {"e", {3}}},
                     .domain = {Real},
                     .attrs = {{"causal", true}, {"scale", 0.5}, {"window", Int(0)}},
                     .absent = {6, 7, 8}},
                    {.dims = {{"b", {2}}, {"s", {5}}, {"u", {5}}, {"hk", {2}}, {"r", {3}}, {"d", {4}}, {"e", {4}}},
                     .domain = {Real},
                     .attrs = {{"causal", true}, {"scale", 0.5}, {"window", Int(3)}},
                     .absent = {6, 7}}}};
}

}    // namespace sheaf
