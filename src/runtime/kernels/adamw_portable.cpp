#include <cmath>

#include "runtime/kernels/adamw.h"

namespace sheaf {

// Plain operations in the order of ops/adamw.cpp. Baseline x86-64 has no fused multiply-add, so the results are those of the op bit for
// bit, but for LibTorch's square root of arrays (MKL's, not always the nearest number).
template <bool decoupled>
static void update(float* __restrict w, float* __restrict m, float* __restrict v, const float* __restrict g, std::int64_t n,
                   const AdamwScalars& scalars, const AdamwSettings& settings) {
  const float factor = *scalars.factor, lr = *scalars.lr, beta1 = *scalars.beta1, beta2 = *scalars.beta2, bias1 = *scalars.bias1,
              bias2 = *scalars.bias2;
  const float rest1 = 1 - beta1, rest2 = 1 - beta2, eps = settings.eps, decay = settings.weight_decay;
  for (std::int64_t i = 0; i < n; ++i) {
    float grad = g[i] * factor;
    if (!decoupled) grad += w[i] * decay;
    const float m1 = m[i] * beta1 + grad * rest1, v1 = v[i] * beta2 + grad * grad * rest2;
    float step = m1 / bias1 / (std::sqrt(v1 / bias2) + eps);
    if (decoupled) step += w[i] * decay;
    w[i] -= step * lr, m[i] = m1, v[i] = v1;
  }
}

void adamw_portable(float* w, float* m, float* v, const float* g, std::int64_t n, const AdamwScalars& scalars,
                    const AdamwSettings& settings) {
  if (*scalars.commit > 0) (settings.decoupled ? update<true> : update<false>)(w, m, v, g, n, scalars, settings);
}

}    // namespace sheaf
