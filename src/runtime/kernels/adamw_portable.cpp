#include <bit>
#include <cmath>
#include <type_traits>

#include "base/dtype.h"
#include "runtime/kernels/adamw.h"

namespace sheaf {
namespace {

float number(float x) { return x; }
float number(std::uint16_t bf16) { return float_of_bf16(bf16); }
void put(float x, float& to) { to = x; }
void put(float x, std::uint16_t& to) { to = bf16_bits(x); }

struct WholeWeights {
  float* __restrict w;
  float get(std::int64_t i) const { return w[i]; }
  void put(std::int64_t i, float x) const { w[i] = x; }
};
struct SplitWeights {
  std::uint16_t* __restrict high;
  std::int16_t* __restrict low;
  float get(std::int64_t i) const { return join_float({high[i], low[i]}); }
  void put(std::int64_t i, float x) const {
    const SplitFloat parts = split_float(x);
    high[i] = parts.high, low[i] = parts.low;
  }
};

// Plain operations in the order of ops/adamw.cpp. Baseline x86-64 has no fused multiply-add, so the results are those of the op bit for
// bit, but for LibTorch's square root of arrays (MKL's, not always the nearest number).
template <bool decoupled, class W, class M, class G>
void update(W weights, M* __restrict m, M* __restrict v, const G* __restrict g, std::int64_t begin, std::int64_t end,
            const AdamwScalars& scalars, const AdamwSettings& settings) {
  const float factor = *scalars.factor, lr = *scalars.lr, beta1 = *scalars.beta1, beta2 = *scalars.beta2, bias1 = *scalars.bias1,
              bias2 = *scalars.bias2;
  const float rest1 = 1 - beta1, rest2 = 1 - beta2, eps = settings.eps, decay = settings.weight_decay;
  for (std::int64_t i = begin; i < end; ++i) {
    const float w = weights.get(i);
    float grad = number(g[i]) * factor;
    if (!decoupled) grad += w * decay;
    const float m1 = number(m[i]) * beta1 + grad * rest1, v1 = number(v[i]) * beta2 + grad * grad * rest2;
    float step = m1 / bias1 / (std::sqrt(v1 / bias2) + eps);
    if (decoupled) step += w * decay;
    weights.put(i, w - step * lr);
    put(m1, m[i]), put(v1, v[i]);
  }
}

}    // namespace

void adamw_portable(AdamwWeights w, AdamwMoments moments, AdamwGradient g, std::int64_t begin, std::int64_t end,
                    const AdamwScalars& scalars, const AdamwSettings& settings) {
  if (!(*scalars.commit > 0)) return;
  const auto with_all = [&](auto weights, auto* m, const auto* gradient) {
    using W = decltype(weights);
    using M = std::remove_pointer_t<decltype(m)>;
    using G = std::remove_cvref_t<decltype(*gradient)>;
    (settings.decoupled ? update<true, W, M, G> : update<false, W, M, G>)(weights, m, static_cast<M*>(moments.v), gradient, begin, end,
                                                                          scalars, settings);
  };
  const auto with_moments = [&](auto weights, const auto* gradient) {
    moments.type == FloatType::fp32 ? with_all(weights, static_cast<float*>(moments.m), gradient)
                                    : with_all(weights, static_cast<std::uint16_t*>(moments.m), gradient);
  };
  const auto with_weights = [&](auto weights) {
    g.type == FloatType::fp32 ? with_moments(weights, static_cast<const float*>(g.data))
                              : with_moments(weights, static_cast<const std::uint16_t*>(g.data));
  };
  w.w ? with_weights(WholeWeights{w.w}) : with_weights(SplitWeights{w.high, w.low});
}

}    // namespace sheaf
