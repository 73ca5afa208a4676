#include "runtime/kernels/adamw.h"
#include "runtime/kernels/cuda/wide.h"

namespace sheaf {
namespace {

constexpr int kThreads = 256;

struct Numbers {
  float factor, lr, beta1, beta2, rest1, rest2, bias1, bias2, eps, decay;
  bool decoupled;
};

// __fmul_rn and __fadd_rn are never fused: the kernel waits for memory anyway, and so equals its twin bit for bit.
__device__ void update(float& w, float& m, float& v, float g, const Numbers& c) {
  g = __fmul_rn(g, c.factor);
  if (!c.decoupled) g = __fadd_rn(g, __fmul_rn(w, c.decay));
  m = __fadd_rn(__fmul_rn(m, c.beta1), __fmul_rn(g, c.rest1));
  v = __fadd_rn(__fmul_rn(v, c.beta2), __fmul_rn(__fmul_rn(g, g), c.rest2));
  float step = __fdiv_rn(__fdiv_rn(m, c.bias1), __fadd_rn(__fsqrt_rn(__fdiv_rn(v, c.bias2)), c.eps));
  if (c.decoupled) step = __fadd_rn(step, __fmul_rn(w, c.decay));
  w = __fadd_rn(w, -__fmul_rn(step, c.lr));
}

__device__ Numbers read(const AdamwScalars& s, const AdamwSettings& settings) {
  const float beta1 = *s.beta1, beta2 = *s.beta2;
  return {*s.factor,         *s.lr, beta1, beta2, 1 - beta1, 1 - beta2, *s.bias1, *s.bias2, settings.eps, settings.weight_decay,
          settings.decoupled};
}

__device__ float4 load_four(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ float4 load_four(const std::uint16_t* p) {
  const uint2 bits = *reinterpret_cast<const uint2*>(p);
  return make_float4(from_bits(bits.x & 0xffffu), from_bits(bits.x >> 16), from_bits(bits.y & 0xffffu), from_bits(bits.y >> 16));
}

__device__ void store_four(float4 x, float* p) { *reinterpret_cast<float4*>(p) = x; }
__device__ void store_four(float4 x, std::uint16_t* p) {
  *reinterpret_cast<uint2*>(p) = make_uint2(to_bf16_pair(x.x, x.y), to_bf16_pair(x.z, x.w));
}

bool aligned(const void* pointer, std::uintptr_t bytes) { return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0; }

// As base/dtype.h has it.
__device__ float join_parts(std::uint32_t high, std::uint32_t low) {    // low: the lower 16 bits of it
  return __uint_as_float((high << 16) + static_cast<std::uint32_t>(static_cast<std::int32_t>(static_cast<std::int16_t>(low))));
}
__device__ std::uint32_t high_part(float w) {
  const std::uint32_t bits = __float_as_uint(w);
  return w != w ? bits >> 16 | 0x40u : (bits + 0x8000u) >> 16;
}
__device__ std::uint32_t low_part(float w) { return w != w ? 0 : __float_as_uint(w) & 0xffffu; }

// How weights are stored. `four` and `put_four`: elements 4 i to 4 i + 3, on whose bytes the pointers are aligned.
struct WholeWeights {
  float* w;
  __host__ bool by_four() const { return aligned(w, 16); }
  __device__ float one(std::int64_t i) const { return w[i]; }
  __device__ void put(std::int64_t i, float x) const { w[i] = x; }
  __device__ float4 four(std::int64_t i) const { return reinterpret_cast<const float4*>(w)[i]; }
  __device__ void put_four(std::int64_t i, float4 x) const { reinterpret_cast<float4*>(w)[i] = x; }
};
struct SplitWeights {
  std::uint16_t* high;
  std::int16_t* low;
  __host__ bool by_four() const { return aligned(high, 8) && aligned(low, 8); }
  __device__ float one(std::int64_t i) const { return join_parts(high[i], static_cast<std::uint16_t>(low[i])); }
  __device__ void put(std::int64_t i, float x) const {
    high[i] = static_cast<std::uint16_t>(high_part(x)), low[i] = static_cast<std::int16_t>(low_part(x));
  }
  __device__ float4 four(std::int64_t i) const {
    const uint2 h = reinterpret_cast<const uint2*>(high)[i], l = reinterpret_cast<const uint2*>(low)[i];
    return make_float4(join_parts(h.x & 0xffffu, l.x & 0xffffu), join_parts(h.x >> 16, l.x >> 16), join_parts(h.y & 0xffffu, l.y & 0xffffu),
                       join_parts(h.y >> 16, l.y >> 16));
  }
  __device__ void put_four(std::int64_t i, float4 x) const {
    reinterpret_cast<uint2*>(high)[i] = make_uint2(high_part(x.x) | high_part(x.y) << 16, high_part(x.z) | high_part(x.w) << 16);
    reinterpret_cast<uint2*>(low)[i] = make_uint2(low_part(x.x) | low_part(x.y) << 16, low_part(x.z) | low_part(x.w) << 16);
  }
};

template <class W, class M, class G>
__device__ void update_one(W weights, M* m, M* v, const G* g, std::int64_t i, const Numbers& c) {
  float w = weights.one(i), m1 = load(m + i), v1 = load(v + i);
  update(w, m1, v1, load(g + i), c);
  weights.put(i, w);
  store(m1, m + i);
  store(v1, v + i);
}

// One thread takes four neighbours by 16-byte accesses, of 16-bit numbers by 8; the last n % 4 go to the first threads of the grid. All
// pointers are aligned so.
template <class W, class M, class G>
__global__ void __launch_bounds__(kThreads) adamw_by_four(W weights, M* __restrict__ m, M* __restrict__ v, const G* __restrict__ g,
                                                          std::int64_t n, AdamwScalars scalars, AdamwSettings settings) {
  if (!(*scalars.commit > 0)) return;
  const Numbers c = read(scalars, settings);
  const std::int64_t thread = std::int64_t(blockIdx.x) * kThreads + threadIdx.x, quads = n / 4;
  if (thread < quads) {
    float4 w = weights.four(thread), m1 = load_four(m + 4 * thread), v1 = load_four(v + 4 * thread);
    const float4 g4 = load_four(g + 4 * thread);
    update(w.x, m1.x, v1.x, g4.x, c);
    update(w.y, m1.y, v1.y, g4.y, c);
    update(w.z, m1.z, v1.z, g4.z, c);
    update(w.w, m1.w, v1.w, g4.w, c);
    weights.put_four(thread, w);
    store_four(m1, m + 4 * thread);
    store_four(v1, v + 4 * thread);
  }
  if (thread < n - 4 * quads) update_one(weights, m, v, g, 4 * quads + thread, c);
}

// For pieces that are not aligned.
template <class W, class M, class G>
__global__ void __launch_bounds__(kThreads) adamw_by_one(W weights, M* __restrict__ m, M* __restrict__ v, const G* __restrict__ g,
                                                         std::int64_t n, AdamwScalars scalars, AdamwSettings settings) {
  if (!(*scalars.commit > 0)) return;
  const Numbers c = read(scalars, settings);
  const std::int64_t i = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) update_one(weights, m, v, g, i, c);
}

template <class W, class M, class G>
void launch(W weights, M* m, M* v, const G* g, std::int64_t n, const AdamwScalars& scalars, const AdamwSettings& settings,
            gpuStream_t stream) {
  const bool by_four = weights.by_four() && aligned(m, 4 * sizeof(M)) && aligned(v, 4 * sizeof(M)) && aligned(g, 4 * sizeof(G));
  const unsigned blocks = num_blocks(by_four ? (n + 3) / 4 : n, kThreads);
  const auto kernel = by_four ? adamw_by_four<W, M, G> : adamw_by_one<W, M, G>;
  kernel<<<blocks, kThreads, 0, stream>>>(weights, m, v, g, n, scalars, settings);
}
template <class W, class M>
void launch(W weights, M* m, M* v, AdamwGradient g, std::int64_t n, const AdamwScalars& scalars, const AdamwSettings& settings,
            gpuStream_t stream) {
  if (g.type == FloatType::fp32)
    launch(weights, m, v, static_cast<const float*>(g.data), n, scalars, settings, stream);
  else
    launch(weights, m, v, static_cast<const std::uint16_t*>(g.data), n, scalars, settings, stream);
}
template <class W>
void launch(W weights, AdamwMoments moments, AdamwGradient g, std::int64_t n, const AdamwScalars& scalars, const AdamwSettings& settings,
            gpuStream_t stream) {
  if (moments.type == FloatType::fp32)
    launch(weights, static_cast<float*>(moments.m), static_cast<float*>(moments.v), g, n, scalars, settings, stream);
  else
    launch(weights, static_cast<std::uint16_t*>(moments.m), static_cast<std::uint16_t*>(moments.v), g, n, scalars, settings, stream);
}

}    // namespace

const char* adamw_device(AdamwWeights w, AdamwMoments moments, AdamwGradient g, std::int64_t n, const AdamwScalars& scalars,
                         const AdamwSettings& settings, void* stream) {
  if (n == 0) return nullptr;
  const auto s = stream_of(stream);
  if (w.w)
    launch(WholeWeights{w.w}, moments, g, n, scalars, settings, s);
  else
    launch(SplitWeights{w.high, w.low}, moments, g, n, scalars, settings, s);
  return launch_error();
}

}    // namespace sheaf
