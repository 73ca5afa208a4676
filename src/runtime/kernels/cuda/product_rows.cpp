// CUDA rows of einsum and einsum_add: 16-bit matrices whose product, in 16 bits or fp32, is written where it belongs or added to what is
// there by the product itself.
#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <optional>

#include "ops/contraction.h"
#include "runtime/kernels/cuda/gemm.h"
#include "runtime/kernels/cuda/row_support.h"

namespace sheaf {
namespace {

// More than one element along these factors of an operand: a vector is no matrix to the library.
bool is_long(const Rule::Factors& group, const Rule::Factors& letters, const Shape& shape) {
  for (std::size_t d = 0; d < letters.size(); ++d)
    if (shape[d] > 1 && std::find(group.begin(), group.end(), letters[d]) != group.end()) return true;
  return false;
}

bool takes_product(const Attrs& attrs, const Type& x, const Type& y, DType result) {
  if (!is_half(x) || y.dtype != x.dtype || (result != x.dtype && result != DType::fp32)) return false;
  if (is_empty(x) || is_empty(y) || x.routed || y.routed) return false;    // of routed rows the host may not know the number beforehand
  const Contraction& c = contraction(attrs);
  return c.x_only.empty() && c.y_only.empty() && is_long(c.m, c.x, x.shape) && is_long(c.k, c.x, x.shape) && is_long(c.n, c.y, y.shape);
}
bool takes_einsum(const Attrs& attrs, const Types& in) {
  return in.size() == 2 && in[1] && takes_product(attrs, *in[0], *in[1], einsum_dtype(attrs, in, 0));
}
// acc, x, y: the product is added before it is rounded, so it must not be meant to be rounded to less than acc.
bool takes_einsum_add(const Attrs& attrs, const Types& in) {
  return einsum_dtype(attrs, {in[1], in[2]}, 0) == in[0]->dtype && takes_product(attrs, *in[1], *in[2], in[0]->dtype);
}

// How a matrix lies; nullopt if neither its rows nor its columns are lines without gaps.
std::optional<GemmOperand> operand(const at::Tensor& t) {
  const std::int64_t rows = t.size(-2), columns = t.size(-1), down = t.stride(-2), along = t.stride(-1);
  const std::int64_t stride = t.dim() == 3 && t.size(0) > 1 ? t.stride(0) : 0;
  if ((columns == 1 || along == 1) && (rows == 1 || down >= columns)) return GemmOperand{rows == 1 ? columns : down, stride, false};
  if ((rows == 1 || down == 1) && (columns == 1 || along >= rows)) return GemmOperand{columns == 1 ? rows : along, stride, true};
  return std::nullopt;
}

cudaDataType data_type(const at::Tensor& t) {
  return t.scalar_type() == at::kFloat ? CUDA_R_32F : t.scalar_type() == at::kHalf ? CUDA_R_16F : CUDA_R_16BF;
}

using UseGemm = void (*)(const Gemm&, void* workspace, CUstream_st*);

// d := a b, or c + a b; d has lines without gaps, c lies as d or is undefined.
void multiply(at::Tensor a, at::Tensor b, at::Tensor c, at::Tensor d, UseGemm use) {
  if (operand(d)->turned) {    // the transpose of b times that of a
    std::swap(a, b);
    for (at::Tensor* t : {&a, &b, &c, &d})
      if (t->defined()) *t = t->transpose(-2, -1);
  }
  for (at::Tensor* t : {&a, &b})
    if (!operand(*t)) *t = t->contiguous();
  const GemmShape shape{.m = d.size(-2),
                        .n = d.size(-1),
                        .k = a.size(-1),
                        .batch = d.dim() == 3 ? d.size(0) : 1,
                        .a = *operand(a),
                        .b = *operand(b),
                        .d = *operand(d),
                        .in = data_type(a),
                        .out = data_type(d),
                        .adds = c.defined()};
  const at::Tensor workspace = at::empty({static_cast<std::int64_t>(kGemmWorkspace)}, a.options().dtype(at::kByte));
  use({shape, a.const_data_ptr(), b.const_data_ptr(), c.defined() ? c.const_data_ptr() : nullptr, d.data_ptr()}, workspace.data_ptr(),
      static_cast<CUstream_st*>(current_stream()));
}

// acc undefined: nothing is added.
void product(const Args& args, const at::Tensor& acc, const at::Tensor& x, const at::Tensor& y, UseGemm use) {
  at::Tensor out = args.out[0];
  const Contraction& c = contraction(args.attrs);
  const Matrices m = matrices(c, x, y, out);
  if (m.out && operand(*m.out) && (!acc.defined() || acc.strides() == out.strides()))
    return multiply(m.a, m.b, acc.defined() ? acc.as_strided(m.out->sizes(), m.out->strides(), acc.storage_offset()) : at::Tensor(), *m.out,
                    use);
  std::vector<std::int64_t> sizes = m.a.sizes().vec();
  sizes.back() = m.b.size(-1);
  const at::Tensor result = at::empty(sizes, out.options());
  multiply(m.a, m.b, at::Tensor(), result, use);
  acc.defined() ? at::add_out(out, acc, as_output(c, result, out)) : out.copy_(as_output(c, result, out));
}

template <UseGemm use>
void einsum(const Args& a) {
  product(a, at::Tensor(), a.in[0], a.in[1], use);
}
template <UseGemm use>
void einsum_add(const Args& a) {
  product(a, a.in[0], a.in[1], a.in[2], use);
}
template <void (*row)(const Args&)>
void measure(const Args& a) {
  for (const at::Tensor& t : a.in) t.normal_();
  row(a);
}

}    // namespace

// Which algorithm measuring finds is not the same in every run.
std::vector<KernelRow> cuda_product_rows() {
  constexpr DeviceKind cuda = DeviceKind::cuda;
  return {
      {.op = "einsum",
       .device = cuda,
       .name = "cublasLt, measured",
       .takes = takes_einsum,
       .launch = einsum<multiply_as_measured>,
       .deterministic = false,
       .tune = measure<einsum<measure_gemm>>},
      {.op = "einsum", .device = cuda, .name = "cublasLt", .takes = takes_einsum, .launch = einsum<multiply_as_guessed>},
      {.op = "einsum_add",
       .device = cuda,
       .name = "cublasLt, measured",
       .takes = takes_einsum_add,
       .launch = einsum_add<multiply_as_measured>,
       .deterministic = false,
       .tune = measure<einsum_add<measure_gemm>>},
      {.op = "einsum_add", .device = cuda, .name = "cublasLt", .takes = takes_einsum_add, .launch = einsum_add<multiply_as_guessed>},
  };
}

}    // namespace sheaf
