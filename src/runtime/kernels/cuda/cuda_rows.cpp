// The CUDA rows, in order of preference. All but those of host_rows.cpp are capture-safe: no host read, no allocation but from their slot
// once plans and handles exist.
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>

#include "ops/matrices.h"
#include "ops/op_table.h"
#include "runtime/kernels/adamw_args.h"
#include "runtime/kernels/cuda/attention_cudnn.h"
#include "runtime/kernels/cuda/row_support.h"
#include "runtime/kernels/embedding_grad.h"
#include "runtime/kernels/rows.h"
#include "runtime/kernels/sumsq.h"

namespace sheaf {
namespace {

// bf16 operands, fp32 result, straight from the GEMM's accumulators: what product_rows.cpp does not take.
bool takes_wide_product(const Attrs& attrs, const Types& in) {
  if (attrs.text("dtype") != "fp32" || in.size() < 2 || !in[1] || !is_half(*in[0]) || in[1]->dtype != in[0]->dtype) return false;
  if (is_empty(*in[0]) || is_empty(*in[1])) return false;
  const Contraction c = contraction(Rule::parse(attrs.text("rule")));
  return !c.k.empty() && c.x_only.empty() && c.y_only.empty();
}
void wide_product(const Args& a) {
  multiply_matrices(contraction(a.attrs), a.in[0], a.in[1], a.out[0], at::kFloat,
                    [](at::Tensor& out, const at::Tensor& x, const at::Tensor& y) {
                      // As one TensorImpl, out and self are the same memory to LibTorch; with beta 0 nothing of it is read.
                      x.dim() == 3 ? at::bmm_out(out, x, y, at::kFloat) : at::addmm_out(out, out, x, y, at::kFloat, 0, 1);
                    });
}

void adamw_launch(const Args& a) {
  const AdamwCall c(a);
  check(adamw_device(c.w, c.moments, c.g, c.n, c.scalars, c.settings, current_stream()), "adamw");
}

bool takes_sumsq(const Attrs&, const Types& in) { return is_plain_float(*in[0]); }
void sumsq_launch(const Args& a) {
  const at::Tensor parts = at::empty({kSumsqParts}, a.out[0].options());
  check(sumsq_device(a.out[0].data_ptr<float>(), parts.data_ptr<float>(), a.in[0].const_data_ptr(), float_type(a.in[0]), a.in[0].numel(),
                     current_stream()),
        "sumsq");
}

// Sorted by id, stably: each id's rows are summed in the order of the tokens by one thread per column, so the bits are always the same.
bool takes_embedding_grad(const Attrs&, const Types& in) {
  return (is_half(*in[0]) || in[0]->dtype == DType::fp32) && (in[1]->dtype == DType::i64 || in[1]->dtype == DType::i32);
}
void embedding_grad_launch(const Args& a) {
  at::Tensor out = a.out[0].zero_();
  const at::Tensor dy = a.in[0].contiguous();
  if (out.numel() == 0 || dy.numel() == 0) return;
  const auto [ids, order] = at::sort(a.in[1].flatten(), true, 0, false);
  const at::Tensor ids64 = ids.to(at::kLong);
  const DyType type = dy.scalar_type() == at::kFloat ? DyType::fp32 : dy.scalar_type() == at::kHalf ? DyType::fp16 : DyType::bf16;
  const EmbeddingGradShape shape{ids64.numel(), out.size(1), a.owner_begin, out.size(0), a.attrs.integer("padding_id")};
  check(embedding_grad_device(out.data_ptr<float>(), dy.data_ptr(), type, ids64.data_ptr<std::int64_t>(), order.data_ptr<std::int64_t>(),
                              shape, current_stream()),
        "embedding_grad");
}

// The ops' own kernels, of which nothing is asked but to do with gaps: ATen does.
bool takes_tokens(const Attrs&, const Types& in) { return in[0]->shape.size() > 2; }
bool takes_sum(const Attrs& attrs, const Types& in) { return (in.size() < 2 || !in[1]) && takes_tokens(attrs, in); }

// Of rows with documents v alone may have gaps, and its gradient: cuDNN's backward finds its sums of dq by where documents begin in q, and
// would read and write beyond them.
std::vector<KernelRow> attention_rows() {
  constexpr std::uint32_t qkv = 0b111, v = 0b100;
  const KernelRow forward{.op = "attention", .device = DeviceKind::cuda, .name = "cudnn", .launch = cudnn_attention},
      backward{.op = "attention_grad", .device = DeviceKind::cuda, .name = "cudnn", .launch = cudnn_attention_grad, .deterministic = false},
      deterministic{
          .op = "attention_grad", .device = DeviceKind::cuda, .name = "cudnn deterministic", .launch = cudnn_attention_grad_deterministic};
  const auto with = [](KernelRow row, auto takes, ColumnMask columns) {
    row.takes = takes, row.columns = columns;
    return row;
  };
  return {
      with(forward, [](const Attrs& a, const Types& in) { return !in[3] && cudnn_takes_attention(a, in); }, {.in = qkv}),
      with(forward, cudnn_takes_attention, {.in = v}),
      with(backward, [](const Attrs& a, const Types& in) { return !in[6] && cudnn_takes_attention_grad(a, in); }, {.in = qkv, .out = qkv}),
      with(backward, cudnn_takes_attention_grad, {.in = v, .out = v}),
      with(deterministic, [](const Attrs& a, const Types& in) { return !in[6] && cudnn_takes_attention_grad_deterministic(a, in); },
           {.in = qkv, .out = qkv}),
      with(deterministic, cudnn_takes_attention_grad_deterministic, {.in = v, .out = v}),
  };
}

}    // namespace

std::vector<KernelRow> cuda_rows() {
  constexpr DeviceKind cuda = DeviceKind::cuda;
  std::vector<KernelRow> rows = {
      {.op = "add",
       .device = cuda,
       .name = "aten",
       .takes = takes_tokens,
       .launch = op(OpId::add).kernel,
       .columns = {.in = 0b11, .out = 1}},
      {.op = "adamw", .device = cuda, .name = "sheaf", .takes = takes_adamw, .launch = adamw_launch},
      {.op = "adamw_split", .device = cuda, .name = "sheaf", .takes = takes_adamw_split, .launch = adamw_launch},
      {.op = "einsum", .device = cuda, .name = "aten, sum", .takes = takes_sum, .launch = op(OpId::einsum).kernel, .columns = {.in = 1}},
      {.op = "einsum", .device = cuda, .name = "fp32 out", .takes = takes_wide_product, .launch = wide_product},
      {.op = "embedding_grad", .device = cuda, .name = "sorted", .takes = takes_embedding_grad, .launch = embedding_grad_launch},
      {.op = "sumsq", .device = cuda, .name = "sheaf", .takes = takes_sumsq, .launch = sumsq_launch},
  };
  const auto attention = attention_rows();
  rows.insert(rows.end(), attention.begin(), attention.end());
  // Before the others: "fp32 out" and products would take einsums that go row by row, and "fp32 out" products.
  for (const std::vector<KernelRow>& more :
       {cuda_product_rows(), cuda_moe_rows(), cuda_router_rows(), cuda_grouped_rows(), cuda_fused_rows()})
    rows.insert(rows.begin(), more.begin(), more.end());
  for (const KernelRow& last : cuda_host_rows()) rows.push_back(last);
  return rows;
}

}    // namespace sheaf
