#pragma once
// What files of CUDA rows share. For .cpp files.
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <initializer_list>

#include "base/error.h"
#include "runtime/kernels/float_type.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

inline void* current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }
// What a launch returned.
inline void check(const char* error, std::string_view kernel) { SHEAF_CHECK(!error, "{}: {}", kernel, error); }

inline bool is_half(const Type& type) { return type.dtype == DType::bf16 || type.dtype == DType::fp16; }
inline bool is_empty(const Type& type) { return num_elements(type.shape) == 0; }
// What kernels read and write unless they say that they do fp16 as well.
inline bool is_plain_float(const Type& type) { return type.dtype == DType::fp32 || type.dtype == DType::bf16; }
inline FloatType float_type(const at::Tensor& t) {
  return t.scalar_type() == at::kFloat ? FloatType::fp32 : t.scalar_type() == at::kHalf ? FloatType::fp16 : FloatType::bf16;
}
inline FloatType float_type(const Type& type) {
  return type.dtype == DType::fp32 ? FloatType::fp32 : type.dtype == DType::fp16 ? FloatType::fp16 : FloatType::bf16;
}

inline const std::int32_t* integers(const at::Tensor& t) { return t.const_data_ptr<std::int32_t>(); }
// Elements of a row or token: of all dims from `from` on.
inline std::int64_t elements_from(at::IntArrayRef shape, std::size_t from) {
  std::int64_t n = 1;
  for (std::size_t d = from; d < shape.size(); ++d) n *= shape[d];
  return n;
}
// The attribute `dtype` is one of these; `same` is that of the first operand.
inline bool results_in(const Attrs& attrs, const Types& in, std::initializer_list<DType> wanted) {
  const std::string& text = attrs.text("dtype");
  return std::any_of(wanted.begin(), wanted.end(), [&](DType d) { return text == name(d) || (text == "same" && d == in[0]->dtype); });
}

// Elements from a token of [b, s, ..] to the next, more than it has where others lie beside it (passes/columns.h).
inline bool has_gaps(const at::Tensor& t) { return t.defined() && !t.is_contiguous(); }
inline bool has_whole_tokens(const at::Tensor& t) {    // there are no other gaps
  std::int64_t dense = 1;
  for (std::int64_t d = t.dim() - 1; d > 1; dense *= t.size(d--))
    if (t.size(d) > 1 && t.stride(d) != dense) return false;
  return true;
}
inline std::int64_t width_without_gaps(const at::Tensor& t) { return t.numel() / (t.size(0) * t.size(1)); }
inline std::int64_t pitch(const at::Tensor& t) { return has_gaps(t) ? t.stride(1) : width_without_gaps(t); }

// cuda_fused_rows.cpp
std::vector<KernelRow> cuda_fused_rows();
// cuda_moe_rows.cpp
std::vector<KernelRow> cuda_moe_rows();
// grouped_rows.cpp
std::vector<KernelRow> cuda_grouped_rows();
// host_rows.cpp
std::vector<KernelRow> cuda_host_rows();
// router_rows.cpp
std::vector<KernelRow> cuda_router_rows();
// product_rows.cpp
std::vector<KernelRow> cuda_product_rows();

}    // namespace sheaf
