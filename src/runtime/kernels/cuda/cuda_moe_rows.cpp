// CUDA rows of routed tensors, and of the einsums and activations between their products. Nothing is read back by the host.
#include <ATen/ops/full.h>

#include <algorithm>

#include "ops/gated_math.h"
#include "runtime/kernels/cuda/row_support.h"
#include "runtime/kernels/gated.h"
#include "runtime/kernels/routed.h"
#include "runtime/kernels/row_products.h"

namespace sheaf {
namespace {

// Which row a slot has.
at::Tensor rows_of_slots(const at::Tensor& slot, std::int64_t slots) {
  at::Tensor row = at::full({slots}, -1, slot.options());
  check(rows_of_slots_device(row.data_ptr<std::int32_t>(), integers(slot), slot.numel(), current_stream()), "rows of slots");
  return row;
}

bool takes_dispatch(const Attrs&, const Types& in) {
  return in[1]->dtype == DType::i32 && elements_from(in[0]->shape, 2) * size_bytes(in[0]->dtype) % 16 == 0;
}
void dispatch_launch(const Args& a) {
  const std::int64_t tokens = a.in[0].size(0) * a.in[0].size(1), k = a.attrs.integer("k");
  const at::Tensor row = rows_of_slots(a.in[1], tokens * k);
  check(dispatch_device(a.out[0].data_ptr(), a.in[0].data_ptr(), {tokens, k, integers(row)},
                        elements_from(a.in[0].sizes(), 2) * a.in[0].element_size(), current_stream()),
        "dispatch");
}

bool takes_combine(const Attrs&, const Types& in) {
  return in[1]->dtype == DType::i32 && is_plain_float(*in[0]) && elements_from(in[0]->shape, 3) % 8 == 0;
}
void combine_launch(const Args& a) {
  const std::int64_t tokens = a.out[0].size(0) * a.out[0].size(1), k = a.attrs.integer("k");
  const at::Tensor row = rows_of_slots(a.in[1], tokens * k);
  check(combine_device(a.out[0].data_ptr(), a.in[0].data_ptr(), float_type(a.in[0]), {tokens, k, integers(row)},
                       elements_from(a.in[0].sizes(), 3), current_stream()),
        "combine");
}

bool takes_weights(const Attrs&, const Types& in) {
  const std::int64_t bytes = size_bytes(in[0]->dtype);
  return in[1]->dtype == DType::i32 && (bytes == 2 || bytes == 4);
}
void dispatch_weights_launch(const Args& a) {
  check(dispatch_weights_device(a.out[0].data_ptr(), a.in[0].data_ptr(), integers(a.in[1]), a.out[0].numel(), a.in[0].element_size(),
                                current_stream()),
        "dispatch_weights");
}
void combine_weights_launch(const Args& a) {
  a.out[0].zero_();
  check(combine_weights_device(a.out[0].data_ptr(), a.in[0].data_ptr(), integers(a.in[1]), a.in[0].numel(), a.in[0].element_size(),
                               current_stream()),
        "combine_weights");
}

// Einsums row by row: "R D, R -> R D" and "R D, R D -> R", where R and D are any letters.
struct RowRule {
  Rule rule;
  std::size_t rows = 0;    // letters of R
};
RowRule row_rule(const Attrs& attrs) {
  RowRule r{Rule::parse(attrs.text("rule"))};
  r.rows = std::min(r.rule.out[0].size(), r.rule.in.size() > 1 ? r.rule.in[1].size() : 0);
  return r;
}
bool begins_with(const Rule::Factors& all, const Rule::Factors& first) {
  return !first.empty() && first.size() < all.size() && std::equal(first.begin(), first.end(), all.begin());
}
bool takes_rows(const Types& in, std::size_t rows) {
  return is_plain_float(*in[0]) && is_plain_float(*in[1]) && !is_empty(*in[0]) && elements_from(in[0]->shape, rows) % 8 == 0;
}

bool takes_scale_rows(const Attrs& attrs, const Types& in) {
  if (in.size() < 2 || !in[1]) return false;
  const auto [rule, rows] = row_rule(attrs);
  return rule.in[0] == rule.out[0] && begins_with(rule.in[0], rule.in[1]) && results_in(attrs, in, {in[0]->dtype}) && takes_rows(in, rows);
}
void scale_rows_launch(const Args& a) {
  const std::int64_t rows = a.in[1].numel();
  check(scale_rows_device(a.out[0].data_ptr(), a.in[0].data_ptr(), float_type(a.in[0]), a.in[1].data_ptr(), float_type(a.in[1]), {}, rows,
                          elements_from(a.in[0].sizes(), static_cast<std::size_t>(a.in[1].dim())), current_stream()),
        "rows times numbers");
}

// Rows and biases of their experts, operands 0 to 2.
bool takes_biases(const Types& in) {
  return in[1]->dtype == in[0]->dtype && in[2]->dtype == DType::i32 && is_plain_float(*in[0]) && !is_empty(*in[0]) &&
         elements_from(in[0]->shape, 3) % 8 == 0;
}
ExpertBiases biases_of(const Args& a) { return {a.in[1].data_ptr(), integers(a.in[2]), a.owner_begin}; }

bool takes_add_expert_bias(const Attrs&, const Types& in) { return takes_biases(in); }
bool takes_biased_weighted(const Attrs&, const Types& in) { return takes_biases(in) && is_plain_float(*in[3]); }
void launch_biased(const Args& a, const void* w, FloatType w_type) {
  check(scale_rows_device(a.out[0].data_ptr(), a.in[0].data_ptr(), float_type(a.in[0]), w, w_type, biases_of(a), a.in[2].numel(),
                          elements_from(a.in[0].sizes(), 3), current_stream()),
        "rows with biases");
}
void add_expert_bias_launch(const Args& a) { launch_biased(a, nullptr, FloatType::fp32); }
void biased_weighted_launch(const Args& a) { launch_biased(a, a.in[3].data_ptr(), float_type(a.in[3])); }

constexpr std::int64_t kLongestDot = 1 << 14;    // a warp sums a row
bool takes_biased_weighted_grad(const Attrs& attrs, const Types& in) {
  return takes_biased_weighted(attrs, in) && in[4]->dtype == in[0]->dtype && results_in(attrs, in, {DType::fp32, DType::bf16}) &&
         elements_from(in[0]->shape, 3) <= kLongestDot;
}
void biased_weighted_grad_launch(const Args& a) {
  check(scale_rows_grad_device(a.out[1].data_ptr(), a.out[0].data_ptr(), float_type(a.out[0]), a.in[0].data_ptr(), a.in[4].data_ptr(),
                               float_type(a.in[0]), a.in[3].data_ptr(), float_type(a.in[3]), biases_of(a), a.in[2].numel(),
                               elements_from(a.in[0].sizes(), 3), current_stream()),
        "rows with biases, gradient");
}

bool takes_dot_rows(const Attrs& attrs, const Types& in) {
  if (in.size() < 2 || !in[1] || in[1]->dtype != in[0]->dtype) return false;
  const auto [rule, rows] = row_rule(attrs);
  return rule.in[0] == rule.in[1] && begins_with(rule.in[0], rule.out[0]) && results_in(attrs, in, {DType::fp32, DType::bf16}) &&
         takes_rows(in, rows) && elements_from(in[0]->shape, rows) <= kLongestDot;
}
void dot_rows_launch(const Args& a) {
  check(dot_rows_device(a.out[0].data_ptr(), float_type(a.out[0]), a.in[0].data_ptr(), a.in[1].data_ptr(), float_type(a.in[0]),
                        a.out[0].numel(), elements_from(a.in[0].sizes(), static_cast<std::size_t>(a.out[0].dim())), current_stream()),
        "rows times rows");
}

constexpr std::pair<std::string_view, Activation> kActivations[] = {{"silu", Activation::silu},
                                                                    {"gelu", Activation::gelu},
                                                                    {"gelu_tanh", Activation::gelu_tanh},
                                                                    {"relu", Activation::relu},
                                                                    {"clamped_swiglu", Activation::clamped_swiglu}};
const Activation* activation(const Attrs& attrs) {
  for (const auto& [name, value] : kActivations)
    if (attrs.text("activation") == name) return &value;
  return nullptr;
}
// Of a tensor with pairs in dim g: numbers that follow each other without a pair's other one between; 1 if pairs are neighbours.
bool takes_gated(const Attrs& attrs, const Types& in) {
  if (!is_plain_float(*in[0]) || is_empty(*in[0]) || !activation(attrs)) return false;
  const auto g = static_cast<std::size_t>(gate_dim(attrs));
  const Shape& x = in[0]->shape;
  return g + 1 < x.size() ? elements_from(x, g + 1) % 8 == 0 : g > 0 && x[g - 1] % 8 == 0;
}
Gated gated_of(const Attrs& attrs, const at::Tensor& x) {
  const auto g = static_cast<std::size_t>(gate_dim(attrs));
  const bool neighbours = g + 1 == static_cast<std::size_t>(x.dim());
  const std::int64_t m = neighbours ? x.size(-2) : elements_from(x.sizes(), g + 1);
  return {x.numel() / (2 * m), m, neighbours, *activation(attrs), static_cast<float>(attrs.number("limit"))};
}
void gated_launch(const Args& a) {
  check(gated_device(a.out[0].data_ptr(), a.in[0].data_ptr(), float_type(a.in[0]), gated_of(a.attrs, a.in[0]), current_stream()), "gated");
}
bool takes_gated_grad(const Attrs& attrs, const Types& in) { return takes_gated(attrs, in) && in[1]->dtype == in[0]->dtype; }
void gated_grad_launch(const Args& a) {
  check(gated_grad_device(a.out[0].data_ptr(), a.in[0].data_ptr(), a.in[1].data_ptr(), float_type(a.in[0]), gated_of(a.attrs, a.in[0]),
                          current_stream()),
        "gated_grad");
}

// A row is one pair of halves, or of neighbours.
bool takes_biased_gated(const Attrs& attrs, const Types& in) {
  return takes_gated(attrs, in) && takes_biases(in) && in[0]->shape.size() == 5 && gate_dim(attrs) >= 3;
}
bool takes_biased_gated_grad(const Attrs& attrs, const Types& in) { return takes_biased_gated(attrs, in) && in[3]->dtype == in[0]->dtype; }
Gated biased_of(const Args& a) {
  Gated gated = gated_of(a.attrs, a.in[0]);
  gated.biases = biases_of(a);
  return gated;
}
void biased_gated_launch(const Args& a) {
  check(gated_device(a.out[0].data_ptr(), a.in[0].data_ptr(), float_type(a.in[0]), biased_of(a), current_stream()), "biased_gated");
}
void biased_gated_grad_launch(const Args& a) {
  check(gated_grad_device(a.out[0].data_ptr(), a.in[0].data_ptr(), a.in[3].data_ptr(), float_type(a.in[0]), biased_of(a), current_stream()),
        "biased_gated_grad");
}

RowNumbers row_numbers(const at::Tensor& t) { return {t.data_ptr(), float_type(t)}; }
// What lies in front of the pairs are the rows, each with its number.
bool takes_gated_weighted(const Attrs& attrs, const Types& in) {
  const auto rows = in[1]->shape.size();
  const auto g = static_cast<std::size_t>(gate_dim(attrs));
  return takes_gated(attrs, in) && is_plain_float(*in[1]) && in[0]->shape.size() == rows + 2 && (g == rows || g == rows + 1);
}
void gated_weighted_launch(const Args& a) {
  Gated gated = gated_of(a.attrs, a.in[0]);
  gated.weights = row_numbers(a.in[1]);
  check(gated_device(a.out[0].data_ptr(), a.in[0].data_ptr(), float_type(a.in[0]), gated, current_stream()), "gated_weighted");
}
bool takes_gated_weighted_grad(const Attrs& attrs, const Types& in) {
  return takes_gated_weighted(attrs, in) && in[2]->dtype == in[0]->dtype && results_in(attrs, in, {DType::fp32, DType::bf16});
}
void gated_weighted_grad_launch(const Args& a) {
  Gated gated = gated_of(a.attrs, a.in[0]);
  gated.weights = row_numbers(a.in[1]), gated.dweights = row_numbers(a.out[1]);
  check(gated_grad_device(a.out[0].data_ptr(), a.in[0].data_ptr(), a.in[2].data_ptr(), float_type(a.in[0]), gated, current_stream()),
        "gated_weighted_grad");
}

}    // namespace

std::vector<KernelRow> cuda_moe_rows() {
  constexpr DeviceKind cuda = DeviceKind::cuda;
  return {
      {.op = "add_expert_bias", .device = cuda, .name = "sheaf", .takes = takes_add_expert_bias, .launch = add_expert_bias_launch},
      {.op = "biased_gated", .device = cuda, .name = "sheaf", .takes = takes_biased_gated, .launch = biased_gated_launch},
      {.op = "biased_gated_grad", .device = cuda, .name = "sheaf", .takes = takes_biased_gated_grad, .launch = biased_gated_grad_launch},
      {.op = "biased_weighted", .device = cuda, .name = "sheaf", .takes = takes_biased_weighted, .launch = biased_weighted_launch},
      {.op = "biased_weighted_grad",
       .device = cuda,
       .name = "sheaf",
       .takes = takes_biased_weighted_grad,
       .launch = biased_weighted_grad_launch},
      {.op = "dispatch", .device = cuda, .name = "sheaf", .takes = takes_dispatch, .launch = dispatch_launch},
      {.op = "combine", .device = cuda, .name = "sheaf", .takes = takes_combine, .launch = combine_launch},
      {.op = "dispatch_weights", .device = cuda, .name = "sheaf", .takes = takes_weights, .launch = dispatch_weights_launch},
      {.op = "combine_weights", .device = cuda, .name = "sheaf", .takes = takes_weights, .launch = combine_weights_launch},
      {.op = "einsum", .device = cuda, .name = "rows times numbers", .takes = takes_scale_rows, .launch = scale_rows_launch},
      {.op = "einsum", .device = cuda, .name = "rows times rows", .takes = takes_dot_rows, .launch = dot_rows_launch},
      {.op = "gated", .device = cuda, .name = "sheaf", .takes = takes_gated, .launch = gated_launch},
      {.op = "gated_grad", .device = cuda, .name = "sheaf", .takes = takes_gated_grad, .launch = gated_grad_launch},
      {.op = "gated_weighted", .device = cuda, .name = "sheaf", .takes = takes_gated_weighted, .launch = gated_weighted_launch},
      {.op = "gated_weighted_grad",
       .device = cuda,
       .name = "sheaf",
       .takes = takes_gated_weighted_grad,
       .launch = gated_weighted_grad_launch},
  };
}

}    // namespace sheaf
