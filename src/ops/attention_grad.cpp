#include <ATen/ops/exp.h>
#include <ATen/ops/zeros_like.h>

#include "ops/attention_math.h"
#include "ops/builder.h"

namespace sheaf {

// With p = exp(scores - lse) and delta = sum over e of dy o:  dv = p^T dy,  ds = p (dy v^T - delta),  dq = scale ds k,  dk = scale ds^T q.
// Unchanged with sinks, whose gradient is -sum over b, s of exp(sink - lse) delta.
static void attention_grad_kernel(const Args& a) {
  const at::Tensor &q = a.in[0], &k = a.in[1], &v = a.in[2], &o = a.in[3], &lse = a.in[4], &dy = a.in[5], &ends = a.in[6], &sinks = a.in[7];
  const auto dtype = attention_dtype(q);
  const double scale = a.attrs.number("scale");
  const std::int64_t hk = q.size(2), r = q.size(3);
  if (sinks.defined()) a.out[3].zero_();
  for (std::int64_t row = 0; row < q.size(0); ++row) {
    const at::Tensor k_row = k.select(0, row).permute({1, 0, 2}).to(dtype), v_row = v.select(0, row).permute({1, 0, 2}).to(dtype);
    const at::Tensor dk = at::zeros_like(k_row), dv = at::zeros_like(v_row);    // [hk u d], [hk u e]
    for (const AttentionBlock& block : attention_blocks(ends.defined() ? ends.select(0, row) : ends, a.attrs, q.size(1), k.size(1))) {
      const auto keys = [&](const at::Tensor& t) { return t.narrow(1, block.keys_begin, block.keys_end - block.keys_begin); };
      const auto queries = [&](const at::Tensor& t) { return heads_first(queries_of(t.select(0, row), block), dtype); };
      const std::int64_t n = block.end - block.begin;
      const at::Tensor q_hd = queries(q), dy_he = queries(dy);
      const at::Tensor lse_h = queries_of(lse.select(0, row), block).permute({1, 2, 0}).to(dtype).reshape({hk, r * n, 1});
      const at::Tensor p = block_scores(q_hd, keys_of(k.select(0, row), block), a.attrs, block).sub_(lse_h).exp_();
      const at::Tensor delta = queries(o).mul(dy_he).sum(-1, true);    // not in place: heads_first may be a view
      keys(dv).add_(at::bmm(p.transpose(1, 2), dy_he));
      const at::Tensor ds = at::bmm(dy_he, keys(v_row).transpose(1, 2)).sub_(delta).mul_(p).mul_(scale);
      heads_last(at::bmm(ds, keys(k_row)), queries_of(a.out[0].select(0, row), block));
      keys(dk).add_(at::bmm(ds.transpose(1, 2), q_hd));
      if (sinks.defined()) {
        const at::Tensor weight = sinks.to(dtype).view({hk, r, 1}).sub(lse_h.view({hk, r, n})).exp_();
        a.out[3].sub_(weight.mul_(delta.view({hk, r, n})).sum(-1));
      }
    }
    a.out[1].select(0, row).copy_(dk.permute({1, 0, 2}));
    a.out[2].select(0, row).copy_(dv.permute({1, 0, 2}));
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
                     .absent = {6, 7}},
                    {.dims = {{"b", {2}}, {"s", {5}}, {"u", {5}}, {"hk", {2}}, {"r", {3}}, {"d", {4}}, {"e", {4}}},
                     .domain = {Real},
                     .attrs = {{"causal", true}, {"scale", 0.5}, {"window", Int(3)}},
                     .absent = {6}},
                    {.dims = {{"b", {3}}, {"s", {6}}, {"u", {6}}, {"hk", {2}}, {"r", {2}}, {"d", {4}}, {"e", {4}}, {"c", {2}}},
                     .domain = {Real, Real, Real, Real, Real, Real, Ends("s"), Real},
                     .attrs = {{"causal", true}, {"scale", 0.5}, {"window", Int(0)}}}}};
}

}    // namespace sheaf
