#pragma once
// Device kernels of rms_norm, of rotate and of what is fused with them: raw pointers and a stream, one pass over memory. Statistics,
// angles and sums in fp32. Each returns the run-time library's error text, nullptr if all is well. The ops' own kernels are the portable
// twins and the oracle.
#include <cstdint>

#include "runtime/kernels/float_type.h"

namespace sheaf {

// Rows to norm: x [tokens, heads, d]. cos and sin [tokens, j] rotate the pairs (i, i + j) of the first 2 j channels of every head; nullptr:
// no rotation, and only tokens times heads matters.
struct NormRows {
  std::int64_t tokens, heads, d;
  FloatType type, weight_type;    // of x and all of its shape; of w: the same, or fp32
  float eps;
  const float *cos = nullptr, *sin = nullptr;
  std::int64_t j = 0;
  // With rotation: elements from a token to the next in x, in y or dy, and in dx, multiples of 16 bytes; 0: heads times d.
  std::int64_t x_pitch = 0, y_pitch = 0, dx_pitch = 0;
};
// Whether the kernels below do rows of d channels, with j > 0 rotated.
bool norm_takes(FloatType type, std::int64_t d, std::int64_t j);

// y = w n, n = x / sqrt(mean(x^2) + eps), w [d]. Before w multiplies n is rounded to its type. With delta: `sum` = x + delta, rounded, is
// normed instead of x. With cos and sin y is rotated before it is rounded.
const char* rms_norm_device(void* y, void* sum, const void* x, const void* delta, const void* w, const NormRows& rows, void* stream);

// dx = r t - x r^3 mean(t x), r = 1 / sqrt(mean(x^2) + eps), t = w dy, where dy is rotated back first; + dsum, unless that is nullptr.
// dw [d] fp32 = sum of dy x r, by way of dw_parts [rms_norm_parts(rows), d]: the same bits on every call.
std::int64_t rms_norm_parts(const NormRows& rows);
const char* rms_norm_grad_device(void* dx, float* dw, float* dw_parts, const void* x, const void* w, const void* dy, const void* dsum,
                                 const NormRows& rows, void* stream);

// y = x rotated, by the negative angle if `inverse`; x + bias [heads, d] in place of x unless that is nullptr. Of `rows` the type of
// weights and eps do not matter.
const char* rotate_device(void* y, const void* x, const void* bias, const NormRows& rows, bool inverse, void* stream);

}    // namespace sheaf
