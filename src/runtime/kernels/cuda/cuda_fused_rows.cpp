// CUDA rows of fused ops (ops/parts.h), and of the parts that run alone where fusing is impossible: one pass over memory each. Nothing is
// read back by the host.
#include <ATen/ops/empty.h>

#include <algorithm>

#include "runtime/kernels/cross_entropy.h"
#include "runtime/kernels/cuda/row_support.h"
#include "runtime/kernels/gated.h"
#include "runtime/kernels/norm_rope.h"

namespace sheaf {
namespace {

// Cross-entropy. Columns are the last dim of in[0], the logits; rows all others.
bool takes_logits(const Types& in, const Type& labels) {
  const bool labels_fit = labels.dtype == DType::i64 || labels.dtype == DType::i32;
  return labels_fit && (is_plain_float(*in[0]) || in[0]->dtype == DType::fp16);
}
bool are_fp32(const Types& in, std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; ++i)
    if (in[i]->dtype != DType::fp32) return false;
  return true;
}
Labels labels_of(const at::Tensor& labels, std::int64_t begin) {
  return {labels.const_data_ptr(), labels.scalar_type() == at::kLong, begin};
}
const float* floats(const at::Tensor& t) { return t.const_data_ptr<float>(); }

bool takes_softmax_sums(const Attrs&, const Types& in) { return takes_logits(in, *in[1]); }
void softmax_sums_launch(const Args& a) {
  const at::Tensor &x = a.in[0], &m = a.out[0];
  check(softmax_sums_device(m.data_ptr<float>(), a.out[1].data_ptr<float>(), a.out[2].data_ptr<float>(), x.const_data_ptr(), float_type(x),
                            labels_of(a.in[1], 0), m.numel(), x.size(-1), current_stream()),
        "softmax_sums");
}
bool takes_row_max(const Attrs&, const Types& in) { return are_fp32(in, 0, 1); }
void row_max_launch(const Args& a) {
  check(row_max_device(a.out[0].data_ptr<float>(), floats(a.in[0]), a.out[0].numel(), a.in[0].size(-1), current_stream()), "row_max");
}
bool takes_sum_exp(const Attrs&, const Types& in) { return are_fp32(in, 0, 2); }
void sum_exp_launch(const Args& a) {
  check(sum_exp_device(a.out[0].data_ptr<float>(), floats(a.in[0]), floats(a.in[1]), a.out[0].numel(), a.in[0].size(-1), current_stream()),
        "sum_exp");
}
// softmax_grad is logits_grad of logits in fp32.
bool takes_softmax_grad(const Attrs&, const Types& in) { return are_fp32(in, 0, 4) && takes_logits(in, *in[4]); }
bool takes_logits_grad(const Attrs& attrs, const Types& in) {
  return are_fp32(in, 1, 4) && takes_logits(in, *in[4]) && attrs.text("dtype") == name(in[0]->dtype);
}
void logits_grad_launch(const Args& a) {
  const at::Tensor& x = a.in[0];
  check(logits_grad_device(a.out[0].data_ptr(), x.const_data_ptr(), float_type(x), floats(a.in[1]), floats(a.in[2]), floats(a.in[3]),
                           labels_of(a.in[4], a.owner_begin), a.in[1].numel(), x.size(-1), current_stream()),
        "logits_grad");
}

// Norms and rotations.
bool takes_norm_of(const Type& x, const Type* w, std::int64_t rotated) {
  return is_plain_float(x) && !is_empty(x) && w && (w->dtype == x.dtype || w->dtype == DType::fp32) &&
         norm_takes(float_type(x), num_elements(w->shape), rotated);
}
NormRows norm_rows(const Args& a) {
  const at::Tensor &x = a.in[0], &w = a.in[1];
  const std::int64_t d = w.numel();
  return {.tokens = x.numel() / d,
          .heads = 1,
          .d = d,
          .type = float_type(x),
          .weight_type = float_type(w),
          .eps = static_cast<float>(a.attrs.number("eps"))};
}
// x [b, s, heads.., d], cos and sin [b, s, j].
NormRows rotated_rows(const Args& a, const at::Tensor& cos, const at::Tensor& sin) {
  NormRows rows = norm_rows(a);
  rows.heads = rows.tokens / (a.in[0].size(0) * a.in[0].size(1));
  rows.tokens /= rows.heads;
  rows.cos = floats(cos), rows.sin = floats(sin), rows.j = cos.size(-1);
  rows.x_pitch = pitch(a.in[0]);
  return rows;
}
void launch_norm_grad(const Args& a, const NormRows& rows, const void* dsum) {
  const at::Tensor parts = at::empty({rms_norm_parts(rows), rows.d}, a.out[1].options());
  check(rms_norm_grad_device(a.out[0].data_ptr(), a.out[1].data_ptr<float>(), parts.data_ptr<float>(), a.in[0].const_data_ptr(),
                             a.in[1].const_data_ptr(), a.in[2].const_data_ptr(), dsum, rows, current_stream()),
        "rms_norm_grad");
}

bool takes_rms_norm(const Attrs&, const Types& in) { return takes_norm_of(*in[0], in[1], 0); }
void rms_norm_launch(const Args& a) {
  check(rms_norm_device(a.out[0].data_ptr(), nullptr, a.in[0].const_data_ptr(), nullptr, a.in[1].const_data_ptr(), norm_rows(a),
                        current_stream()),
        "rms_norm");
}
bool takes_rms_norm_grad(const Attrs&, const Types& in) { return takes_norm_of(*in[0], in[1], 0) && in[2]->dtype == in[0]->dtype; }
void rms_norm_grad_launch(const Args& a) { launch_norm_grad(a, norm_rows(a), nullptr); }

bool takes_add_rms_norm(const Attrs&, const Types& in) { return takes_norm_of(*in[0], in[2], 0) && in[1]->dtype == in[0]->dtype; }
void add_rms_norm_launch(const Args& a) {
  const at::Tensor in[] = {a.in[0], a.in[2]};
  check(rms_norm_device(a.out[1].data_ptr(), a.out[0].data_ptr(), a.in[0].const_data_ptr(), a.in[1].const_data_ptr(),
                        a.in[2].const_data_ptr(), norm_rows({in, a.out, a.attrs}), current_stream()),
        "add_rms_norm");
}
bool takes_rms_norm_grad_add(const Attrs& attrs, const Types& in) { return takes_rms_norm_grad(attrs, in) && in[3]->dtype == in[0]->dtype; }
void rms_norm_grad_add_launch(const Args& a) { launch_norm_grad(a, norm_rows(a), a.in[3].const_data_ptr()); }

bool takes_rotation(const Attrs& attrs, const Type& cos, const Type& sin) {
  return cos.dtype == DType::fp32 && sin.dtype == DType::fp32 && !attrs.flag("interleaved");
}
bool takes_norm_rotate(const Attrs& attrs, const Types& in) {
  return takes_rotation(attrs, *in[2], *in[3]) && takes_norm_of(*in[0], in[1], in[2]->shape.back());
}
void norm_rotate_launch(const Args& a) {
  NormRows rows = rotated_rows(a, a.in[2], a.in[3]);
  rows.y_pitch = pitch(a.out[0]);
  check(rms_norm_device(a.out[0].data_ptr(), nullptr, a.in[0].const_data_ptr(), nullptr, a.in[1].const_data_ptr(), rows, current_stream()),
        "norm_rotate");
}
bool takes_norm_rotate_grad(const Attrs& attrs, const Types& in) {
  return takes_rotation(attrs, *in[3], *in[4]) && takes_norm_of(*in[0], in[1], in[3]->shape.back()) && in[2]->dtype == in[0]->dtype;
}
void norm_rotate_grad_launch(const Args& a) {
  NormRows rows = rotated_rows(a, a.in[3], a.in[4]);
  rows.y_pitch = pitch(a.in[2]), rows.dx_pitch = pitch(a.out[0]);
  launch_norm_grad(a, rows, nullptr);
}

bool takes_rotation_of(const Attrs& attrs, const Type& x, const Type& cos, const Type& sin) {
  return is_plain_float(x) && !is_empty(x) && takes_rotation(attrs, cos, sin) &&
         norm_takes(float_type(x), x.shape.back(), cos.shape.back());
}
void launch_rotate(const Args& a, const void* bias, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  const at::Tensor& x = a.in[0];
  const std::int64_t tokens = x.size(0) * x.size(1), d = x.size(-1);
  const NormRows rows{.tokens = tokens,
                      .heads = x.numel() / (tokens * d),
                      .d = d,
                      .type = float_type(x),
                      .weight_type = float_type(x),
                      .eps = 0,
                      .cos = floats(cos),
                      .sin = floats(sin),
                      .j = cos.size(-1),
                      .x_pitch = pitch(x),
                      .y_pitch = pitch(a.out[0])};
  check(rotate_device(a.out[0].data_ptr(), x.const_data_ptr(), bias, rows, inverse, current_stream()), "rotate");
}
bool takes_rotate(const Attrs& attrs, const Types& in) { return takes_rotation_of(attrs, *in[0], *in[1], *in[2]); }
void rotate_launch(const Args& a) { launch_rotate(a, nullptr, a.in[1], a.in[2], a.attrs.flag("inverse")); }
bool takes_biased_rotate(const Attrs& attrs, const Types& in) {
  return takes_rotation_of(attrs, *in[0], *in[2], *in[3]) && in[1]->dtype == in[0]->dtype;
}
void biased_rotate_launch(const Args& a) { launch_rotate(a, a.in[1].const_data_ptr(), a.in[2], a.in[3], false); }

// Activations of a gate, times up.
bool takes_glu(const Attrs&, const Types& in) {
  for (const Type* type : in)
    if (type->dtype != in[0]->dtype) return false;
  return is_plain_float(*in[0]);
}
Activation gelu(const Attrs& attrs) { return attrs.flag("tanh") ? Activation::gelu_tanh : Activation::gelu; }
// A token a row, where there are gaps; else one row of everything.
GluRows glu_rows(const Args& a, Activation activation) {
  const std::int64_t n = a.in[0].numel();
  GluRows rows{.rows = 1, .width = n, .type = float_type(a.in[0]), .activation = activation};
  const bool gaps = std::any_of(a.in.begin(), a.in.end(), has_gaps) || std::any_of(a.out.begin(), a.out.end(), has_gaps);
  if (!gaps) return rows;
  rows.rows = a.in[0].size(0) * a.in[0].size(1), rows.width = n / rows.rows;
  rows.gate_pitch = pitch(a.in[0]), rows.up_pitch = pitch(a.in[1]);
  return rows;
}
void launch_glu(const Args& a, Activation activation) {
  GluRows rows = glu_rows(a, activation);
  check(glu_device(a.out[0].data_ptr(), a.in[0].const_data_ptr(), a.in[1].const_data_ptr(), rows, current_stream()), "glu");
}
void launch_glu_grad(const Args& a, Activation activation) {
  GluRows rows = glu_rows(a, activation);
  if (rows.rows > 1) rows.dgate_pitch = pitch(a.out[0]), rows.dup_pitch = pitch(a.out[1]);
  check(glu_grad_device(a.out[0].data_ptr(), a.out[1].data_ptr(), a.in[0].const_data_ptr(), a.in[1].const_data_ptr(),
                        a.in[2].const_data_ptr(), rows, current_stream()),
        "glu_grad");
}
void swiglu_launch(const Args& a) { launch_glu(a, Activation::silu); }
void swiglu_grad_launch(const Args& a) { launch_glu_grad(a, Activation::silu); }
void geglu_launch(const Args& a) { launch_glu(a, gelu(a.attrs)); }
void geglu_grad_launch(const Args& a) { launch_glu_grad(a, gelu(a.attrs)); }

}    // namespace

std::vector<KernelRow> cuda_fused_rows() {
  constexpr DeviceKind cuda = DeviceKind::cuda;
  return {
      {.op = "softmax_sums", .device = cuda, .name = "sheaf", .takes = takes_softmax_sums, .launch = softmax_sums_launch},
      {.op = "logits_grad", .device = cuda, .name = "sheaf", .takes = takes_logits_grad, .launch = logits_grad_launch},
      {.op = "row_max", .device = cuda, .name = "sheaf", .takes = takes_row_max, .launch = row_max_launch},
      {.op = "sum_exp", .device = cuda, .name = "sheaf", .takes = takes_sum_exp, .launch = sum_exp_launch},
      {.op = "softmax_grad", .device = cuda, .name = "sheaf", .takes = takes_softmax_grad, .launch = logits_grad_launch},
      {.op = "rms_norm", .device = cuda, .name = "sheaf", .takes = takes_rms_norm, .launch = rms_norm_launch},
      {.op = "rms_norm_grad", .device = cuda, .name = "sheaf", .takes = takes_rms_norm_grad, .launch = rms_norm_grad_launch},
      {.op = "add_rms_norm", .device = cuda, .name = "sheaf", .takes = takes_add_rms_norm, .launch = add_rms_norm_launch},
      {.op = "rms_norm_grad_add", .device = cuda, .name = "sheaf", .takes = takes_rms_norm_grad_add, .launch = rms_norm_grad_add_launch},
      {.op = "norm_rotate",
       .device = cuda,
       .name = "sheaf",
       .takes = takes_norm_rotate,
       .launch = norm_rotate_launch,
       .columns = {.in = 1, .out = 1}},
      {.op = "norm_rotate_grad",
       .device = cuda,
       .name = "sheaf",
       .takes = takes_norm_rotate_grad,
       .launch = norm_rotate_grad_launch,
       .columns = {.in = 0b101, .out = 1}},
      {.op = "biased_rotate",
       .device = cuda,
       .name = "sheaf",
       .takes = takes_biased_rotate,
       .launch = biased_rotate_launch,
       .columns = {.in = 1, .out = 1}},
      {.op = "rotate", .device = cuda, .name = "sheaf", .takes = takes_rotate, .launch = rotate_launch, .columns = {.in = 1, .out = 1}},
      {.op = "swiglu", .device = cuda, .name = "sheaf", .takes = takes_glu, .launch = swiglu_launch, .columns = {.in = 0b11}},
      {.op = "swiglu_grad",
       .device = cuda,
       .name = "sheaf",
       .takes = takes_glu,
       .launch = swiglu_grad_launch,
       .columns = {.in = 0b11, .out = 0b11}},
      {.op = "geglu", .device = cuda, .name = "sheaf", .takes = takes_glu, .launch = geglu_launch, .columns = {.in = 0b11}},
      {.op = "geglu_grad",
       .device = cuda,
       .name = "sheaf",
       .takes = takes_glu,
       .launch = geglu_grad_launch,
       .columns = {.in = 0b11, .out = 0b11}},
  };
}

}    // namespace sheaf
