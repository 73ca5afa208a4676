#include <bit>
#include <cmath>

#include "runtime/kernels/adamw.h"

namespace sheaf {
namespace {

float number(float x) { return x; }
float number(std::uint16_t bf16) { return std::bit_cast<float>(static_cast<std::uint32_t>(bf16) << 16); }

// Plain operations in the order of ops/adamw.cpp. Baseline x86-64 has no fused multiply-add, so the results are those of the op bit for
// bit, but for LibTorch's square root of arrays (MKL's, not always the nearest number).
template <bool decoupled, class G>
void update(float* __restrict w, float* __restrict m, float* __restrict v, const G* __restrict g, std::int64_t n,
            const AdamwScalars& scalars, const AdamwSettings& settings) {
  const float factor = *scalars.factor, lr = *scalars.lr, beta1 = *scalars.beta1, beta2 = *scalars.beta2, bias1 = *scalars.bias1,
              bias2 = *scalars.bias2;
  const float rest1 = 1 - beta1, rest2 = 1 - beta2, eps = settings.eps, decay = settings.weight_decay;
  for (std::int64_t i = 0; i < n; ++i) {
    float grad = number(g[i]) * factor;
    if (!decoupled) grad += w[i] * decay;
    const float m1 = m[i] * beta1 + grad * rest1, v1 = v[i] * beta2 + grad * grad * rest2;
    float step = m1 / bias1 / (std::sqrt(v1 / bias2) + eps);
    if (decoupled) step += w[i] * decay;
    w[i] -= step * lr, m[i] = m1, v[i] = v1;
  }
}

template <class G>
void update(float* w, float* m, float* v, const void* g, std::int64_t begin, std::int64_t end, const AdamwScalars& scalars,
            const AdamwSettings& settings) {
  (settings.decoupled ? update<true, G> : update<false, G>)(w + begin, m + begin, v + begin, static_cast<const G*>(g) + begin, end - begin,
                                                            scalars, settings);
}

}    // namespace

void adamw_portable(float* w, float* m, float* v, AdamwGradient g, std::int64_t begin, std::int64_t end, const AdamwScalars& scalars,
                    const AdamwSettings& settings) {
  if (!(*scalars.commit > 0)) return;
  (g.type == FloatType::fp32 ? update<float> : update<std::uint16_t>)(w, m, v, g.data, begin, end, scalars, settings);
}

}    // namespace sheaf
