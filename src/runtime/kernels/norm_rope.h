#pragma once
// Device kernels of rms_norm, rms_norm_grad and rotate: raw pointers and a stream. Statistics and angles in fp32. Each returns the run-time
// library's error text, nullptr if all is well. The ops' own kernels are the portable twins and the oracle.
#include <cstdint>

#include "runtime/kernels/float_type.h"

namespace sheaf {

// x, y [tokens, d], w [d]:  y = w n, n = x / sqrt(mean(x^2) + eps) rounded to the type of x before w multiplies. d <= 8192, a multiple
// of 8.
const char* rms_norm_device(void* y, const void* x, const void* w, FloatType type, std::int64_t tokens, std::int64_t d, float eps,
                            void* stream);

// dx [tokens, d] in the type of x; dw_parts [rms_norm_parts(tokens), d] fp32: sums over fixed runs of tokens, for the caller to add in
// order.
std::int64_t rms_norm_parts(std::int64_t tokens);
const char* rms_norm_grad_device(void* dx, float* dw_parts, const void* x, const void* w, const void* dy, FloatType type,
                                 std::int64_t tokens, std::int64_t d, float eps, void* stream);

// x, y [tokens, heads, d]; cos, sin [tokens, j]: rotates the pairs (i, i + j) of the first 2 j channels, by the negative angle if
// `inverse`.
const char* rotate_device(void* y, const void* x, const float* cos, const float* sin, FloatType type, std::int64_t tokens,
                          std::int64_t heads, std::int64_t d, std::int64_t j, bool inverse, void* stream);

}    // namespace sheaf
