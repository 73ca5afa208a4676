// CUDA rows of grouped_einsum: products by LibTorch's grouped matrix product, whose groups are told to it on the device. And of sums of
// rows, of an expert or of all tokens: gradients of biases.
#include <ATen/core/Tensor.h>
#include <ATen/native/cuda/GroupMM.h>
#include <ATen/ops/empty.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <optional>

#include "mesh/rule.h"
#include "runtime/kernels/cuda/row_support.h"
#include "runtime/kernels/experts.h"

namespace sheaf {
namespace {

using Factors = Rule::Factors;

bool is_routed(const Factors& f) { return f.size() >= 3 && f[0] == "e" && f[1] == "b" && f[2] == "s"; }
// The letters of one row of a routed tensor, of one expert of a weight.
Factors own(const Factors& f) { return Factors(f.begin() + (is_routed(f) ? 3 : 1), f.end()); }
Factors operator+(Factors a, const Factors& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Rows are matrices [rows, their letters] and weights [experts, letters, letters], of which the product sees one as it lies or turned:
//   rows k, weights k n or n k -> rows n
//   rows m, rows n             -> weights m n; n m if turned
// nullopt: other letters, which only copies would bring into this form.
struct Product {
  bool to_weights, turned;
};
std::optional<Product> product(const Rule& rule) {
  if (!is_routed(rule.in[0]) || own(rule.in[0]).empty()) return std::nullopt;
  const bool to_weights = is_routed(rule.in[1]);
  if (to_weights == is_routed(rule.out[0])) return std::nullopt;
  const Factors x = own(rule.in[0]), rows = own(to_weights ? rule.in[1] : rule.out[0]), w = own(to_weights ? rule.out[0] : rule.in[1]);
  if (rows.empty() || (w != x + rows && w != rows + x)) return std::nullopt;
  return Product{to_weights, w != x + rows};
}

// CUTLASS's kernels for Hopper and Blackwell; on other GPUs LibTorch has none that needs no host.
bool has_grouped_product() {
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && (major == 9 || major == 10);
}

std::int64_t elements(const Shape& shape, const Factors& letters) { return elements_from(shape, shape.size() - own(letters).size()); }

constexpr std::int64_t kMostGroups = 1023;

bool takes_product(const Attrs& attrs, const Types& in, DType result, bool to_weights_only) {
  if (!in[1] || in[0]->dtype != DType::bf16 || in[1]->dtype != DType::bf16 || in[2]->dtype != DType::i32) return false;
  const Rule rule = Rule::parse(attrs.text("rule"));
  const auto p = product(rule);
  if (!p || (to_weights_only && !p->to_weights) || !results_in(attrs, in, {result})) return false;
  if (in[0]->shape[0] > kMostGroups || is_empty(*in[0]) || is_empty(*in[1])) return false;
  const std::int64_t x = elements(in[0]->shape, rule.in[0]), y = elements(in[1]->shape, rule.in[1]);
  return x % 8 == 0 && y % 8 == 0 && (p->to_weights || y / x % 8 == 0) && has_grouped_product();    // lines begin on 16 bytes
}
bool takes_bf16(const Attrs& attrs, const Types& in) { return takes_product(attrs, in, DType::bf16, false); }
// A weight's gradient: the product is rounded to bf16 as LibTorch has no other, and then cast.
bool takes_fp32(const Attrs& attrs, const Types& in) { return takes_product(attrs, in, DType::fp32, true); }

at::Tensor ends_of_experts(const at::Tensor& expert, std::int64_t experts, std::int64_t begin) {
  at::Tensor ends = at::empty({experts}, expert.options());
  check(ends_of_experts_device(ends.data_ptr<std::int32_t>(), experts, expert.const_data_ptr<std::int32_t>(), expert.numel(), begin,
                               current_stream()),
        "ends of experts");
  return ends;
}

void product_launch(const Args& a) {
  const Product p = *product(Rule::parse(a.attrs.text("rule")));
  const std::int64_t rows = a.in[0].size(2), k = a.in[0].numel() / std::max<std::int64_t>(1, rows);
  at::Tensor out = a.out[0];
  if (rows == 0) return p.to_weights ? void(out.zero_()) : void();
  const at::Tensor& weights = p.to_weights ? out : a.in[1];
  const std::int64_t experts = weights.size(0);
  const at::Tensor ends = ends_of_experts(a.in[2], experts, a.owner_begin), x = a.in[0].view({rows, k});
  if (!p.to_weights) {
    const std::int64_t n = weights.numel() / experts / k;
    at::Tensor y = out.view({rows, n});
    at::cuda::detail::bf16bf16_grouped_mm(x, p.turned ? weights.view({experts, n, k}).transpose(1, 2) : weights.view({experts, k, n}), ends,
                                          std::nullopt, y);
    return;
  }
  const at::Tensor y = a.in[1].view({rows, a.in[1].numel() / rows});
  const at::Tensor &first = p.turned ? y : x, &second = p.turned ? x : y;
  const std::vector<std::int64_t> shape = {experts, first.size(1), second.size(1)};
  at::Tensor result = out.scalar_type() == at::kBFloat16 ? out.view(shape) : at::empty(shape, x.options());
  at::cuda::detail::bf16bf16_grouped_mm(first.t(), second, ends, std::nullopt, result);
  // What a group without rows gets is up to the GPU.
  check(of_experts_with_rows_device(out.data_ptr(), float_type(out), result.data_ptr(), ends.const_data_ptr<std::int32_t>(), experts,
                                    first.size(1) * second.size(1), current_stream()),
        "experts with rows");
}

void launch_sums(const Args& a, RowSums sums) {
  sums.type = float_type(a.in[0]), sums.out_type = float_type(a.out[0]);
  const at::Tensor parts = at::empty({row_sum_parts(sums), a.out[0].numel()}, a.in[0].options().dtype(at::kFloat));
  check(sums_of_rows_device(a.out[0].data_ptr(), parts.data_ptr<float>(), a.in[0].data_ptr(), sums, current_stream()), "sums of rows");
}
bool takes_sums(const Attrs& attrs, const Types& in, std::size_t row) {    // the first dim of a row
  return is_plain_float(*in[0]) && !is_empty(*in[0]) && elements_from(in[0]->shape, row) % 8 == 0 &&
         results_in(attrs, in, {DType::fp32, DType::bf16});
}

bool takes_expert_sums(const Attrs& attrs, const Types& in) { return in[1]->dtype == DType::i32 && takes_sums(attrs, in, 3); }
void expert_sums_launch(const Args& a) {
  const std::int64_t experts = a.out[0].size(0), d = a.out[0].numel() / experts;
  const at::Tensor ends = ends_of_experts(a.in[1], experts, a.owner_begin);
  launch_sums(a, {.rows = a.in[1].numel(), .d = d, .pitch = d, .ends = ends.const_data_ptr<std::int32_t>(), .experts = experts});
}

// "b s D -> D", the gradient of a bias.
bool takes_token_sums(const Attrs& attrs, const Types& in) {
  if ((in.size() > 1 && in[1]) || in[0]->shape.size() < 3) return false;
  const Rule rule = Rule::parse(attrs.text("rule"));
  return Factors(rule.in[0].begin() + 2, rule.in[0].end()) == rule.out[0] && takes_sums(attrs, in, 2);
}
void token_sums_launch(const Args& a) {
  launch_sums(a, {.rows = a.in[0].size(0) * a.in[0].size(1), .d = a.out[0].numel(), .pitch = pitch(a.in[0])});
}

}    // namespace

std::vector<KernelRow> cuda_grouped_rows() {
  constexpr DeviceKind cuda = DeviceKind::cuda;
  return {
      {.op = "grouped_einsum", .device = cuda, .name = "grouped", .takes = takes_bf16, .launch = product_launch},
      {.op = "grouped_einsum", .device = cuda, .name = "grouped, fp32 of bf16", .takes = takes_fp32, .launch = product_launch},
      {.op = "sum_expert_rows", .device = cuda, .name = "sheaf", .takes = takes_expert_sums, .launch = expert_sums_launch},
      {.op = "einsum", .device = cuda, .name = "sums", .takes = takes_token_sums, .launch = token_sums_launch, .columns = {.in = 1}},
  };
}

}    // namespace sheaf
