// Causal attention on the CPU by ATen's flash kernel: no [s, u] scores in memory. It knows no grouped heads, so the query heads of a kv
// head are taken one after the other; functional, so its results are copied.
#include <ATen/core/Tensor.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>

#include "runtime/kernels/rows.h"

namespace sheaf {
namespace {

// [b s hk r d] -> [b hk s d] of query head r, and [b u hk d] -> [b hk u d]: views.
at::Tensor query_head(const at::Tensor& q, std::int64_t r) { return q.select(3, r).transpose(1, 2); }
at::Tensor heads(const at::Tensor& k) { return k.transpose(1, 2); }

bool takes(const Attrs& attrs, const Types& in, std::size_t optional) {
  const DType dtype = in[0]->dtype;
  for (std::size_t i = optional; i < in.size(); ++i)
    if (in[i]) return false;
  const Shape &q = in[0]->shape, &k = in[1]->shape, &v = in[2]->shape;
  return (dtype == DType::fp32 || dtype == DType::bf16) && attrs.flag("causal") && attrs.integer("window") == 0 && q[1] == k[1] &&
         k[3] == v[3] && num_elements(q) > 0;
}

}    // namespace

bool cpu_attention_takes(const Attrs& attrs, const Types& in) { return takes(attrs, in, 3); }
bool cpu_attention_grad_takes(const Attrs& attrs, const Types& in) { return takes(attrs, in, 6); }

void cpu_attention(const Args& a) {
  for (std::int64_t r = 0; r < a.in[0].size(3); ++r) {
    const auto [o, lse] = at::_scaled_dot_product_flash_attention_for_cpu(query_head(a.in[0], r), heads(a.in[1]), heads(a.in[2]), 0, true,
                                                                          {}, a.attrs.number("scale"));
    a.out[0].select(3, r).copy_(o.transpose(1, 2));
    a.out[1].select(3, r).copy_(lse.transpose(1, 2));    // [b hk s]
  }
}

void cpu_attention_grad(const Args& a) {
  const std::int64_t num_r = a.in[0].size(3);
  at::Tensor dk_sum, dv_sum;
  for (std::int64_t r = 0; r < num_r; ++r) {
    const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        query_head(a.in[5], r), query_head(a.in[0], r), heads(a.in[1]), heads(a.in[2]), query_head(a.in[3], r),
        a.in[4].select(3, r).transpose(1, 2), 0, true, {}, a.attrs.number("scale"));
    a.out[0].select(3, r).copy_(dq.transpose(1, 2));
    if (num_r == 1) {
      dk_sum = dk, dv_sum = dv;
    } else if (r == 0) {
      dk_sum = dk.to(at::kFloat), dv_sum = dv.to(at::kFloat);
    } else {
      dk_sum.add_(dk), dv_sum.add_(dv);
    }
  }
  a.out[1].copy_(dk_sum.transpose(1, 2));
  a.out[2].copy_(dv_sum.transpose(1, 2));
}

}    // namespace sheaf
