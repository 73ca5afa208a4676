#include <type_traits>

#include "runtime/kernels/cuda/activation.h"
#include "runtime/kernels/cuda/packed.h"
#include "runtime/kernels/gated.h"

namespace sheaf {
namespace {

// Held by the limit, which NaN is not.
__device__ float at_most(float x, float limit) { return x > limit ? limit : x; }

// The pairs at `at` of a row, a chunk of T each for gates and ups.
template <bool neighbours, class T>
__device__ void load_pairs(uint4 (&pairs)[2], const T* row, int m, int at) {
  pairs[0] = load_packed(row + (neighbours ? 2 * at : at));
  pairs[1] = load_packed(row + (neighbours ? 2 * at + kPacked<T> : m + at));
}
template <bool neighbours, class T>
__device__ void store_pairs(const uint4 (&pairs)[2], T* row, int m, int at) {
  store_packed(pairs[0], row + (neighbours ? 2 * at : at));
  store_packed(pairs[1], row + (neighbours ? 2 * at + kPacked<T> : m + at));
}
template <bool neighbours, class T>
__device__ void unpack_pairs(float (&gate)[kPacked<T>], float (&up)[kPacked<T>], const uint4 (&pairs)[2]) {
  constexpr int n = kPacked<T>;
  float v[2][n];
  unpack<T>(v[0], pairs[0]), unpack<T>(v[1], pairs[1]);
#pragma unroll
  for (int i = 0; i < n; ++i) {
    gate[i] = neighbours ? v[2 * i / n][2 * i % n] : v[0][i];
    up[i] = neighbours ? v[(2 * i + 1) / n][(2 * i + 1) % n] : v[1][i];
  }
}
template <bool neighbours, class T>
__device__ void pack_pairs(uint4 (&pairs)[2], const float (&gate)[kPacked<T>], const float (&up)[kPacked<T>]) {
  constexpr int n = kPacked<T>;
  float v[2][n];
#pragma unroll
  for (int i = 0; i < n; ++i) {
    (neighbours ? v[2 * i / n][2 * i % n] : v[0][i]) = gate[i];
    (neighbours ? v[(2 * i + 1) / n][(2 * i + 1) % n] : v[1][i]) = up[i];
  }
  pairs[0] = pack<T>(v[0]), pairs[1] = pack<T>(v[1]);
}

// + the biases of the expert.
template <bool neighbours, class T>
__device__ void add_pairs(float (&gate)[kPacked<T>], float (&up)[kPacked<T>], const uint4 (&biases)[2]) {
  constexpr int n = kPacked<T>;
  float of_gate[n], of_up[n];
  unpack_pairs<neighbours, T>(of_gate, of_up, biases);
#pragma unroll
  for (int i = 0; i < n; ++i) gate[i] += of_gate[i], up[i] += of_up[i];
}

__device__ void set_number(const RowNumbers& of, std::int64_t row, float x) {
  of.type == FloatType::fp32 ? store(x, static_cast<float*>(of.data) + row) : store(x, static_cast<std::uint16_t*>(of.data) + row);
}

constexpr int kRows = 2;    // of a thread; all are asked for before the first is computed, so no branch stands between

// The first turn along a row stands before the loop of the others: what it reads would wait for the weights, which stay the same in a loop
// and are read, and made fp32, in front of it.
template <class T, class F>
__device__ void by_turns(int m, F&& turn) {
  int at = threadIdx.x * kPacked<T>;
  turn(at);
  while ((at += blockDim.x * kPacked<T>) < m) turn(at);
}

// Of a block x goes along a row, y through rows. Behind the last row the last is read again.
template <Activation kind, bool neighbours, class W, bool biased, class T>
__global__ void __launch_bounds__(kBlock) forward(T* __restrict__ y, const T* __restrict__ x, std::int64_t rows, int m, float limit,
                                                  const W* __restrict__ weights, ExpertBiases biases) {
  constexpr int n = kPacked<T>;
  const std::int64_t first = std::int64_t(blockIdx.x) * blockDim.y * kRows + threadIdx.y;
  by_turns<T>(m, [&](int at) {
    uint4 pairs[kRows][2], added[kRows][2];
    W w[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const std::int64_t r = min(first + u * blockDim.y, rows - 1);
      if constexpr (is_given<W>) w[u] = weights[r];
      load_pairs<neighbours>(pairs[u], x + r * 2 * m, m, at);
      if constexpr (biased) load_pairs<neighbours>(added[u], biases_of<T, 2>(biases, r, m), m, at);
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      float gate[n], up[n], out[n];
      unpack_pairs<neighbours, T>(gate, up, pairs[u]);
      if constexpr (biased) add_pairs<neighbours, T>(gate, up, added[u]);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        float g = gate[i], p = up[i];
        if (limit > 0) g = at_most(g, limit), p = -at_most(-at_most(p, limit), limit);
        if (kind == Activation::clamped_swiglu) p += 1;
        out[i] = activated<kind, sizeof(T) == 2>(g).y * p;
        if constexpr (is_given<W>) out[i] *= to_float(w[u]);
      }
      if (const std::int64_t r = first + u * blockDim.y; r < rows) store_packed(pack<T>(out), y + r * m + at);
    }
  });
}

// Weighted: what the threads of a row have of its sum is added by a warp.
template <Activation kind, bool neighbours, class W, bool biased, class T>
__global__ void __launch_bounds__(kBlock)
    backward(T* __restrict__ dx, const T* __restrict__ x, const T* __restrict__ dy, std::int64_t rows, int m, float limit,
             const W* __restrict__ weights, RowNumbers dweights, ExpertBiases biases) {
  constexpr int n = kPacked<T>;
  const std::int64_t first = std::int64_t(blockIdx.x) * blockDim.y * kRows + threadIdx.y;
  float dw[kRows] = {};
  by_turns<T>(m, [&](int at) {
    uint4 pairs[kRows][2], added[kRows][2], dys[kRows];
    W w[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const std::int64_t r = min(first + u * blockDim.y, rows - 1);
      if constexpr (is_given<W>) w[u] = weights[r];
      load_pairs<neighbours>(pairs[u], x + r * 2 * m, m, at);
      dys[u] = load_packed(dy + r * m + at);
      if constexpr (biased) load_pairs<neighbours>(added[u], biases_of<T, 2>(biases, r, m), m, at);
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      float gate[n], up[n], d[n];
      unpack_pairs<neighbours, T>(gate, up, pairs[u]);
      if constexpr (biased) add_pairs<neighbours, T>(gate, up, added[u]);
      unpack<T>(d, dys[u]);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        float g = gate[i], p = up[i];
        const bool gate_held = limit > 0 && g > limit, up_held = limit > 0 && fabsf(p) > limit;
        if (limit > 0) g = at_most(g, limit), p = -at_most(-at_most(p, limit), limit);
        if (kind == Activation::clamped_swiglu) p += 1;
        const Activated a = activated<kind, sizeof(T) == 2>(g);
        if constexpr (is_given<W>) dw[u] += d[i] * a.y * p, d[i] *= to_float(w[u]);
        gate[i] = gate_held ? 0 : d[i] * p * a.dy;
        up[i] = up_held ? 0 : d[i] * a.y;
      }
      pack_pairs<neighbours, T>(pairs[u], gate, up);
      if (const std::int64_t r = first + u * blockDim.y; r < rows) store_pairs<neighbours>(pairs[u], dx + r * 2 * m, m, at);
    }
  });
  if constexpr (is_given<W>) {
    __shared__ float sums[kRows * kBlock];
    const int width = blockDim.x, rows_at_once = blockDim.y, thread = threadIdx.y * width + threadIdx.x, lane = thread % kWarp;
#pragma unroll
    for (int u = 0; u < kRows; ++u) sums[u * width * rows_at_once + thread] = dw[u];
    __syncthreads();
    const int warps = width * rows_at_once / kWarp;    // a rest that is no warp looks on
    for (int k = thread / kWarp; k < kRows * rows_at_once && thread / kWarp < warps; k += warps) {
      float sum = 0;
      for (int i = lane; i < width; i += kWarp) sum += sums[k * width + i];
      sum = sum_of_lanes(sum);
      if (const std::int64_t r = first - threadIdx.y + k; lane == 0 && r < rows) set_number(dweights, r, sum);
    }
  }
}

// f(kind, neighbours, W, biased) as constants of the compiler.
template <Activation kind, class W, bool biased, class F>
void with_layout(const Gated& gated, F&& f) {
  gated.neighbours ? f.template operator()<kind, true, W, biased>() : f.template operator()<kind, false, W, biased>();
}
template <Activation kind, class F>
void with_operands(const Gated& gated, F&& f) {
  if (gated.biases.data) return with_layout<kind, None, true>(gated, f);
  if (!gated.weights.data) return with_layout<kind, None, false>(gated, f);
  gated.weights.type == FloatType::fp32 ? with_layout<kind, float, false>(gated, f) : with_layout<kind, std::uint16_t, false>(gated, f);
}
template <class F>
void with_constants(const Gated& gated, F&& f) {
  switch (gated.activation) {
    case Activation::silu:
      return with_operands<Activation::silu>(gated, f);
    case Activation::gelu:
      return with_operands<Activation::gelu>(gated, f);
    case Activation::gelu_tanh:
      return with_operands<Activation::gelu_tanh>(gated, f);
    case Activation::relu:
      return with_operands<Activation::relu>(gated, f);
    case Activation::clamped_swiglu:
      return with_operands<Activation::clamped_swiglu>(gated, f);
  }
}

template <class T>
void launch_forward(void* y, const void* x, const Gated& g, gpuStream_t stream) {
  const dim3 block = block_for(g.m / kPacked<T>);
  with_constants(g, [&]<Activation kind, bool neighbours, class W, bool biased>() {
    forward<kind, neighbours, W, biased><<<num_blocks(g.rows, block.y * kRows), block, 0, stream>>>(
        static_cast<T*>(y), static_cast<const T*>(x), g.rows, static_cast<int>(g.m), g.limit, static_cast<const W*>(g.weights.data),
        g.biases);
  });
}
template <class T>
void launch_backward(void* dx, const void* x, const void* dy, const Gated& g, gpuStream_t stream) {
  const dim3 block = block_for(g.m / kPacked<T>);
  with_constants(g, [&]<Activation kind, bool neighbours, class W, bool biased>() {
    backward<kind, neighbours, W, biased><<<num_blocks(g.rows, block.y * kRows), block, 0, stream>>>(
        static_cast<T*>(dx), static_cast<const T*>(x), static_cast<const T*>(dy), g.rows, static_cast<int>(g.m), g.limit,
        static_cast<const W*>(g.weights.data), g.dweights, g.biases);
  });
}

}    // namespace

const char* gated_device(void* y, const void* x, FloatType type, const Gated& gated, void* stream) {
  if (gated.rows == 0 || gated.m == 0) return nullptr;
  const auto s = stream_of(stream);
  type == FloatType::fp32 ? launch_forward<float>(y, x, gated, s) : launch_forward<std::uint16_t>(y, x, gated, s);
  return launch_error();
}

const char* gated_grad_device(void* dx, const void* x, const void* dy, FloatType type, const Gated& gated, void* stream) {
  if (gated.rows == 0 || gated.m == 0) return nullptr;
  const auto s = stream_of(stream);
  type == FloatType::fp32 ? launch_backward<float>(dx, x, dy, gated, s) : launch_backward<std::uint16_t>(dx, x, dy, gated, s);
  return launch_error();
}

}    // namespace sheaf
