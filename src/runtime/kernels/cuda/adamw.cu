#include "runtime/kernels/adamw.h"
#include "runtime/kernels/gpu.h"

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

// One thread takes four neighbours by 16-byte accesses; the last n % 4 go to the first threads of the grid. All pointers are 16-byte
// aligned.
__global__ void __launch_bounds__(kThreads)
    adamw_by_four(float4* __restrict__ w4, float4* __restrict__ m4, float4* __restrict__ v4, const float4* __restrict__ g4, std::int64_t n,
                  AdamwScalars scalars, AdamwSettings settings) {
  if (!(*scalars.commit > 0)) return;
  const Numbers c = read(scalars, settings);
  const std::int64_t thread = std::int64_t(blockIdx.x) * kThreads + threadIdx.x, quads = n / 4;
  if (thread < quads) {
    float4 w = w4[thread], m = m4[thread], v = v4[thread];
    const float4 g = g4[thread];
    update(w.x, m.x, v.x, g.x, c);
    update(w.y, m.y, v.y, g.y, c);
    update(w.z, m.z, v.z, g.z, c);
    update(w.w, m.w, v.w, g.w, c);
    w4[thread] = w, m4[thread] = m, v4[thread] = v;
  }
  if (thread < n - 4 * quads) {
    const std::int64_t i = 4 * quads + thread;
    update(reinterpret_cast<float*>(w4)[i], reinterpret_cast<float*>(m4)[i], reinterpret_cast<float*>(v4)[i],
           reinterpret_cast<const float*>(g4)[i], c);
  }
}

// For pieces that do not begin on 16 bytes.
__global__ void __launch_bounds__(kThreads)
    adamw_by_one(float* __restrict__ w, float* __restrict__ m, float* __restrict__ v, const float* __restrict__ g, std::int64_t n,
                 AdamwScalars scalars, AdamwSettings settings) {
  if (!(*scalars.commit > 0)) return;
  const Numbers c = read(scalars, settings);
  const std::int64_t i = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) update(w[i], m[i], v[i], g[i], c);
}

bool aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

}    // namespace

const char* adamw_device(float* w, float* m, float* v, const float* g, std::int64_t n, const AdamwScalars& scalars,
                         const AdamwSettings& settings, void* stream) {
  if (n == 0) return nullptr;
  const bool by_four = aligned(w) && aligned(m) && aligned(v) && aligned(g);
  const std::int64_t threads = by_four ? (n + 3) / 4 : n;
  const auto blocks = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  const auto s = static_cast<gpuStream_t>(stream);
  if (by_four)
    adamw_by_four<<<blocks, kThreads, 0, s>>>(reinterpret_cast<float4*>(w), reinterpret_cast<float4*>(m), reinterpret_cast<float4*>(v),
                                              reinterpret_cast<const float4*>(g), n, scalars, settings);
  else
    adamw_by_one<<<blocks, kThreads, 0, s>>>(w, m, v, g, n, scalars, settings);
  return launch_error();
}

}    // namespace sheaf
