#include <ATen/ops/logaddexp.h>
#include <ATen/ops/logsumexp.h>

#include "ops/attention_math.h"
#include "ops/builder.h"

namespace sheaf {

std::string attention_rule(const Types& in, bool gradient) {
  std::string rule = "b s hk r d, b u hk d, b u hk e";
  if (gradient) rule += ", b s hk r e, b s hk r, b s hk r e";
  const std::size_t optional = gradient ? 6 : 3;
  const bool sinks = in.size() > optional + 1 && in[optional + 1];
  if (in.size() > optional && in[optional]) rule += ", b c";
  if (sinks) rule += ", hk r";
  rule += gradient ? " -> b s hk r d, b u hk d, b u hk e" : " -> b s hk r e, b s hk r";
  if (gradient && sinks) rule += ", hk r";
  return rule + (rule.find(", b c") == std::string::npos ? "; full s u d e" : "; full s u d e c") + (gradient ? "; linear dy" : "");
}

double attention_flops(const Attrs& attrs, const Types& in) {
  const Shape &q = in[0]->shape, &k = in[1]->shape;
  const double s = static_cast<double>(q[1]), u = static_cast<double>(k[1]), window = static_cast<double>(attrs.integer("window"));
  double pairs = attrs.flag("causal") ? s * (u - (s - 1) / 2) : s * u;
  if (window > 0) pairs = std::min(pairs, s * window);
  return 4.0 * static_cast<double>(q[0] * q[2] * q[3] * q[4]) * pairs;
}

static void attention_kernel(const Args& a) {
  const at::Tensor &q = a.in[0], &k = a.in[1], &v = a.in[2], &ends = a.in[3], &sinks = a.in[4];
  const auto dtype = attention_dtype(q);
  const std::int64_t hk = q.size(2), r = q.size(3);
  for (std::int64_t row = 0; row < q.size(0); ++row)
    for (const AttentionBlock& block : attention_blocks(ends.defined() ? ends.select(0, row) : ends, a.attrs, q.size(1), k.size(1))) {
      const std::int64_t n = block.end - block.begin;
      const at::Tensor scores =
          block_scores(heads_first(queries_of(q.select(0, row), block), dtype), keys_of(k.select(0, row), block), a.attrs, block);
      at::Tensor lse = at::logsumexp(scores, {-1}, true);    // [hk, r n, 1]
      if (sinks.defined()) lse = at::logaddexp(lse.view({hk, r, n, 1}), sinks.to(dtype).view({hk, r, 1, 1})).view(lse.sizes());
      const at::Tensor v_block = keys_of(v.select(0, row), block).permute({1, 0, 2}).to(dtype);
      heads_last(at::bmm(scores.sub(lse).exp_(), v_block), queries_of(a.out[0].select(0, row), block));
      queries_of(a.out[1].select(0, row), block).copy_(lse.view({hk, r, n}).permute({2, 0, 1}));
    }
}

// Consecutive heads: kv head j serves query heads [j r, (j + 1) r), here the dim r. A sink is one more logit whose value is 0.
OpDef attention() {
  return {.doc =
              "o = softmax(scale q k^T + mask) v and its log-sum-exp lse; window > 0: u > s - window; ends [b c]: where the "
              "documents of a row end, attention stays inside them, what remains is one more; sinks: one more logit per head",
          .rule_of = [](const Attrs&, const Types& in) { return attention_rule(in, false); },
          .dtype = [](const Attrs&, const Types& in,
                      std::size_t i) { return i == 1 && size_bytes(in[0]->dtype) == 2 ? DType::fp32 : in[0]->dtype; },
          .flops = attention_flops,
          .grad = [](const Grad& g) -> Values {
            const Results d = g.b.attention_grad(g.x(0), g.x(1), g.x(2), g.out[0], g.out[1], g.dy(), g.x(3), g.x(4), g.attrs.flag("causal"),
                                                 g.attrs.number("scale"), g.attrs.integer("window"));
            return {d[0], d[1], d[2], {}, g.x(4) ? d[3] : Value{}};
          },
          .grad_outputs = 1,
          .no_gradient = "ends: data; lse: only its own gradient op reads it",
          .kernel = attention_kernel,
          .cases = {{.dims = {{"b", {2}}, {"s", {5}}, {"u", {5}}, {"hk", {3}}, {"r", {2}}, {"d", {4}}, {"e", {3}}},
                     .domain = {Real},
                     .attrs = {{"causal", true}, {"scale", 0.5}, {"window", Int(0)}},
                     .absent = {3, 4}},
                    {.dims = {{"b", {2}}, {"s", {5}}, {"u", {5}}, {"hk", {2}}, {"r", {3}}, {"d", {4}}, {"e", {4}}},
                     .domain = {Real},
                     .attrs = {{"causal", false}, {"scale", 0.5}, {"window", Int(3)}},
                     .absent = {3}},
                    {.dims = {{"b", {3}}, {"s", {6}}, {"u", {6}}, {"hk", {2}}, {"r", {2}}, {"d", {4}}, {"e", {4}}, {"c", {2}}},
                     .domain = {Real, Real, Real, Ends("s"), Real},
                     .attrs = {{"causal", true}, {"scale", 0.5}, {"window", Int(0)}}}}};
}

}    // namespace sheaf
