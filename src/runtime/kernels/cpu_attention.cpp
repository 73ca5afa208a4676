// Causal attention on the CPU by ATen's flash kernel: no [s, u] scores in memory. It knows neither grouped heads nor documents, so the
// query heads of a kv head, and documents, are taken one after the other; functional, so its results are copied.
#include <ATen/core/Tensor.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>

#include "ops/attention_math.h"
#include "runtime/kernels/rows.h"

namespace sheaf {
namespace {

// [b s hk r d] -> [b hk s d] of query head r, and [b u hk d] -> [b hk u d]: views.
at::Tensor query_head(const at::Tensor& q, std::int64_t r) { return q.select(3, r).transpose(1, 2); }
at::Tensor heads(const at::Tensor& k) { return k.transpose(1, 2); }

// `optional`: the first of ends, sinks.
bool takes(const Attrs& attrs, const Types& in, std::size_t optional) {
  const DType dtype = in[0]->dtype;
  if (in[optional + 1]) return false;
  const Shape &q = in[0]->shape, &k = in[1]->shape, &v = in[2]->shape;
  return (dtype == DType::fp32 || dtype == DType::bf16) && attrs.flag("causal") && attrs.integer("window") == 0 && q[1] == k[1] &&
         k[3] == v[3] && num_elements(q) > 0;
}

// f(part) for the whole batch, or for each document, where part cuts rows and tokens out of a tensor [b s ..].
template <class F>
void each_document(const at::Tensor& ends, const at::Tensor& q, F&& f) {
  if (!ends.defined()) return f([](const at::Tensor& t) { return t; });
  for (std::int64_t row = 0; row < q.size(0); ++row)
    for (const auto& [begin, end] : document_ranges(ends.select(0, row), q.size(1)))
      f([row, begin = begin, n = end - begin](const at::Tensor& t) { return t.narrow(0, row, 1).narrow(1, begin, n); });
}

}    // namespace

bool cpu_attention_takes(const Attrs& attrs, const Types& in) { return takes(attrs, in, 3); }
bool cpu_attention_grad_takes(const Attrs& attrs, const Types& in) { return takes(attrs, in, 6); }

void cpu_attention(const Args& a) {
  each_document(a.in[3], a.in[0], [&](const auto& part) {
    const at::Tensor k = heads(part(a.in[1])), v = heads(part(a.in[2]));
    for (std::int64_t r = 0; r < a.in[0].size(3); ++r) {
      const auto [o, lse] =
          at::_scaled_dot_product_flash_attention_for_cpu(query_head(part(a.in[0]), r), k, v, 0, true, {}, a.attrs.number("scale"));
      part(a.out[0]).select(3, r).copy_(o.transpose(1, 2));
      part(a.out[1]).select(3, r).copy_(lse.transpose(1, 2));    // [b hk s]
    }
  });
}

void cpu_attention_grad(const Args& a) {
  const std::int64_t num_r = a.in[0].size(3);
  each_document(a.in[6], a.in[0], [&](const auto& part) {
    at::Tensor dk_sum, dv_sum;
    for (std::int64_t r = 0; r < num_r; ++r) {
      const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          query_head(part(a.in[5]), r), query_head(part(a.in[0]), r), heads(part(a.in[1])), heads(part(a.in[2])),
          query_head(part(a.in[3]), r), part(a.in[4]).select(3, r).transpose(1, 2), 0, true, {}, a.attrs.number("scale"));
      part(a.out[0]).select(3, r).copy_(dq.transpose(1, 2));
      if (num_r == 1) {
        dk_sum = dk, dv_sum = dv;
      } else if (r == 0) {
        dk_sum = dk.to(at::kFloat), dv_sum = dv.to(at::kFloat);
      } else {
        dk_sum.add_(dk), dv_sum.add_(dv);
      }
    }
    part(a.out[1]).copy_(dk_sum.transpose(1, 2));
    part(a.out[2]).copy_(dv_sum.transpose(1, 2));
  });
}

}    // namespace sheaf
