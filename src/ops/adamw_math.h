#pragma once
// What adamw and adamw_split have in common. For .cpp files of ops.
#include <ATen/core/Tensor.h>

#include <array>

#include "ops/builder.h"

namespace sheaf {

// w', m', v' in the dtype of w (ops/adamw.cpp has the formula), of a.in[first..]: m, v, g, factor, commit, lr, beta1, beta2, bias1, bias2.
// With commit = 0: w, m, v.
std::array<at::Tensor, 3> adamw_update(const Args& a, const at::Tensor& w, std::size_t first);

// Outputs replace the first operands.
inline DType adamw_dtype(const Attrs&, const Types& in, std::size_t output) { return in[output]->dtype; }
inline double adamw_flops(const Attrs&, const Types& in) { return 14.0 * static_cast<double>(num_elements(in[0]->shape)); }

}    // namespace sheaf
