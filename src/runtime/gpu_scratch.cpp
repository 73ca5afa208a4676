#include "runtime/gpu_scratch.h"

#include <algorithm>

#include "ops/contraction.h"
#include "ops/op_table.h"

namespace sheaf {

// dq in fp32; with GQA dk and dv of every query head, which are added then; the sums of dy o; a copy of lse by heads, or dv without
// gaps. A deterministic run has dq, 128 channels wide whatever there are, once for every 256 keys, with documents for every one of them:
// rows take turns then.
std::int64_t attention_grad_scratch(const Types& in, bool deterministic) {
  const Shape &q = in[0]->shape, &k = in[1]->shape, &v = in[2]->shape;
  const bool documents = in[6] != nullptr, grouped = q[3] > 1;
  const std::int64_t s = q[1], u = k[1], h = q[2] * q[3], d = q[4], e = v[3], wide = 4, narrow = size_bytes(in[0]->dtype);
  const std::int64_t b = documents && deterministic ? 1 : q[0], batch = documents && deterministic ? in[6]->shape[1] + 1 : b;
  const std::int64_t dq = wide * batch * s * h * (deterministic ? 128 * ((u + 255) / 256) : d);
  const std::int64_t of_heads = grouped ? (documents ? wide : narrow) * b * u * h * (d + e) : 0;
  const std::int64_t sums = wide * b * s * h, copies = documents ? narrow * q[0] * u * q[2] * e : sums;
  return dq + of_heads + sums + copies;
}

namespace {

bool is_product(const Node& node, const Types& in) {
  const OpDef* const op_def = node.op;
  if (op_def == &op(OpId::einsum_add) || op_def == &op(OpId::einsum_each) || op_def == &op(OpId::einsum_sum)) return true;
  if (op_def != &op(OpId::einsum) || in.size() < 2 || !in[1]) return false;
  return !contraction(node.attrs).k.empty();
}

// Have kernels that take next to nothing, as all fused ops have.
constexpr OpId kFrugal[] = {OpId::adamw,          OpId::adamw_split,      OpId::add_expert_bias, OpId::attention,
                            OpId::choose_experts, OpId::combine,          OpId::combine_weights, OpId::count_experts,
                            OpId::dispatch,       OpId::dispatch_weights, OpId::embedding_grad,  OpId::gated,
                            OpId::gated_grad,     OpId::normalize,        OpId::normalize_grad,  OpId::put,
                            OpId::rms_norm,       OpId::rms_norm_grad,    OpId::rotate,          OpId::route,
                            OpId::row_max,        OpId::softmax,          OpId::softmax_grad,    OpId::softmax_rows_grad,
                            OpId::sum_exp,        OpId::sum_expert_rows,  OpId::sumsq,           OpId::take};

}    // namespace

std::optional<std::int64_t> gpu_scratch(const Node& node, const Types& in, const Types& out, bool deterministic) {
  const bool is_attention = node.op == &op(OpId::attention) || node.op == &op(OpId::attention_grad);
  if (is_attention && size_bytes(in[0]->dtype) != 2) return std::nullopt;    // cuDNN has it in 16 bits
  if (node.op == &op(OpId::attention_grad)) return attention_grad_scratch(in, deterministic);
  if (is_product(node, in)) return kGemmWorkspace;
  // LibTorch's grouped product gives bf16, also where fp32 is wanted.
  if (node.op == &op(OpId::grouped_einsum) && in[0]->dtype == DType::bf16) return out[0]->dtype == DType::fp32 ? out[0]->bytes() / 2 : 0;
  const bool frugal =
      !node.op->parts.empty() || std::any_of(std::begin(kFrugal), std::end(kFrugal), [&](OpId id) { return node.op == &op(id); });
  return frugal ? std::optional<std::int64_t>(0) : std::nullopt;
}

}    // namespace sheaf
