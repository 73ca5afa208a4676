#pragma once
// The dims that rms_norm and rms_norm_grad norm over: those of the weight, or the last one.
#include <ATen/core/Tensor.h>

#include <string_view>

#include "base/error.h"
#include "ir/op.h"

namespace sheaf {

// Letters of the weight's dims: of one head, of all kv heads, of all query heads.
inline std::string_view norm_factors(const Type* w) {
  constexpr std::string_view kFactors[] = {"d", "h d", "h r d"};
  const std::size_t n = w ? w->shape.size() : 1;
  SHEAF_CHECK(n >= 1 && n <= std::size(kFactors), "rms_norm: a weight of {} dims", n);
  return kFactors[n - 1];
}

// The normed dims as one.
inline at::Tensor as_rows(const at::Tensor& x, const at::Tensor& w) { return w.defined() && w.dim() > 1 ? x.flatten(-w.dim()) : x; }

}    // namespace sheaf
