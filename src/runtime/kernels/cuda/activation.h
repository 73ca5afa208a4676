#pragma once
// Activations and their derivatives, for .cu files.
#include "runtime/kernels/gated.h"
#include "runtime/kernels/gpu.h"

namespace sheaf {

// For bf16 the hardware's exponential and quotient do: their errors of 2^-22 vanish in its rounding.
template <bool fast>
inline __device__ float sigmoid(float x) {
  return fast ? __fdividef(1, 1 + __expf(-x)) : 1 / (1 + expf(-x));
}

struct Activated {
  float y, dy;    // act(x), act'(x)
};
template <Activation kind, bool fast>
inline __device__ Activated activated(float x) {
  if constexpr (kind == Activation::silu) {
    const float s = sigmoid<fast>(x);
    return {x * s, s + x * s * (1 - s)};
  } else if constexpr (kind == Activation::clamped_swiglu) {
    constexpr float kAlpha = 1.702f;
    const float s = sigmoid<fast>(kAlpha * x);
    return {x * s, s + kAlpha * x * s * (1 - s)};
  } else if constexpr (kind == Activation::gelu) {
    const float phi = 0.5f * (1 + erff(x * 0.70710678118654752f));    // x times the normal distribution
    return {x * phi, phi + x * 0.39894228040143268f * expf(-0.5f * x * x)};
  } else if constexpr (kind == Activation::gelu_tanh) {
    constexpr float kScale = 1.5957691216057308f, kCube = 0.044715f;    // 2 sqrt(2 / pi), since (1 + tanh(u)) / 2 = sigmoid(2 u)
    const float s = sigmoid<fast>(kScale * (x + kCube * x * x * x));
    return {x * s, s + x * s * (1 - s) * kScale * (1 + 3 * kCube * x * x)};
  } else {
    return {x < 0 ? 0 : x, x <= 0 ? 0.0f : 1.0f};    // NaN passes, as in LibTorch
  }
}

}    // namespace sheaf
