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

// One thread takes four neighbours by 16-byte accesses, of a bf16 gradient by 8; the last n % 4 go to the first threads of the grid. All
// pointers are aligned so.
template <class G>
__global__ void __launch_bounds__(kThreads)
    adamw_by_four(float4* __restrict__ w4, float4* __restrict__ m4, float4* __restrict__ v4, const G* __restrict__ g, std::int64_t n,
                  AdamwScalars scalars, AdamwSettings settings) {
  if (!(*scalars.commit > 0)) return;
  const Numbers c = read(scalars, settings);
  const std::int64_t thread = std::int64_t(blockIdx.x) * kThreads + threadIdx.x, quads = n / 4;
  if (thread < quads) {
    float4 w = w4[thread], m = m4[thread], v = v4[thread];
    const float4 g4 = load_four(g + 4 * thread);
    update(w.x, m.x, v.x, g4.x, c);
    update(w.y, m.y, v.y, g4.y, c);
    update(w.z, m.z, v.z, g4.z, c);
    update(w.w, m.w, v.w, g4.w, c);
    w4[thread] = w, m4[thread] = m, v4[thread] = v;
  }
  if (thread < n - 4 * quads) {
    const std::int64_t i = 4 * quads + thread;
    update(reinterpret_cast<float*>(w4)[i], reinterpret_cast<float*>(m4)[i], reinterpret_cast<float*>(v4)[i], load(g + i), c);
  }
}

// For pieces that are not aligned.
template <class G>
__global__ void __launch_bounds__(kThreads)
    adamw_by_one(float* __restrict__ w, float* __restrict__ m, float* __restrict__ v, const G* __restrict__ g, std::int64_t n,
                 AdamwScalars scalars, AdamwSettings settings) {
  if (!(*scalars.commit > 0)) return;
  const Numbers c = read(scalars, settings);
  const std::int64_t i = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) update(w[i], m[i], v[i], load(g + i), c);
}

bool aligned(const void* pointer, std::uintptr_t bytes) { return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0; }

template <class G>
void launch(float* w, float* m, float* v, const G* g, std::int64_t n, const AdamwScalars& scalars, const AdamwSettings& settings,
            gpuStream_t stream) {
  const bool by_four = aligned(w, 16) && aligned(m, 16) && aligned(v, 16) && aligned(g, 4 * sizeof(G));
  const unsigned blocks = num_blocks(by_four ? (n + 3) / 4 : n, kThreads);
  if (by_four)
    adamw_by_four<<<blocks, kThreads, 0, stream>>>(reinterpret_cast<float4*>(w), reinterpret_cast<float4*>(m), reinterpret_cast<float4*>(v),
                                                   g, n, scalars, settings);
  else
    adamw_by_one<<<blocks, kThreads, 0, stream>>>(w, m, v, g, n, scalars, settings);
}

}    // namespace

const char* adamw_device(float* w, float* m, float* v, AdamwGradient g, std::int64_t n, const AdamwScalars& scalars,
                         const AdamwSettings& settings, void* stream) {
  if (n == 0) return nullptr;
  const auto s = static_cast<gpuStream_t>(stream);
  if (g.type == FloatType::fp32)
    launch(w, m, v, static_cast<const float*>(g.data), n, scalars, settings, s);
  else
    launch(w, m, v, static_cast<const std::uint16_t*>(g.data), n, scalars, settings, s);
  return launch_error();
}

}    // namespace sheaf
