#include "runtime/kernels/cuda/activation.h"
#include "runtime/kernels/cuda/wide.h"
#include "runtime/kernels/gated.h"

namespace sheaf {
namespace {

// Held by the limit, which NaN is not.
__device__ float at_most(float x, float limit) { return x > limit ? limit : x; }

// The chunk at `at` of a row of pairs.
template <bool neighbours, class T>
__device__ void load_pairs(float (&gate)[kWidth], float (&up)[kWidth], const T* row, int m, int at) {
  if constexpr (neighbours) {
    float a[kWidth], b[kWidth];
    load(a, row + 2 * at);
    load(b, row + 2 * at + kWidth);
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) {
      gate[i] = a[2 * i], up[i] = a[2 * i + 1];
      gate[kWidth / 2 + i] = b[2 * i], up[kWidth / 2 + i] = b[2 * i + 1];
    }
  } else {
    load(gate, row + at);
    load(up, row + m + at);
  }
}
template <bool neighbours, class T>
__device__ void store_pairs(const float (&gate)[kWidth], const float (&up)[kWidth], T* row, int m, int at) {
  if constexpr (neighbours) {
    float a[kWidth], b[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) {
      a[2 * i] = gate[i], a[2 * i + 1] = up[i];
      b[2 * i] = gate[kWidth / 2 + i], b[2 * i + 1] = up[kWidth / 2 + i];
    }
    store(a, row + 2 * at);
    store(b, row + 2 * at + kWidth);
  } else {
    store(gate, row + at);
    store(up, row + m + at);
  }
}

// A number as it lies: it is made one when it is used, so that nothing waits for it before the row is asked for.
__device__ std::uint32_t ask_number(const RowNumbers& of, std::int64_t row) {
  return of.type == FloatType::fp32 ? static_cast<const std::uint32_t*>(of.data)[row] : static_cast<const std::uint16_t*>(of.data)[row];
}
__device__ float number(const RowNumbers& of, std::uint32_t asked) {
  return of.type == FloatType::fp32 ? __uint_as_float(asked) : from_bits(asked);
}
__device__ void set_number(const RowNumbers& of, std::int64_t row, float x) {
  of.type == FloatType::fp32 ? store(x, static_cast<float*>(of.data) + row) : store(x, static_cast<std::uint16_t*>(of.data) + row);
}

constexpr int kRows = 2;    // of a thread, all asked for before the first is computed

// Of a block x goes along a row, y through rows.
template <Activation kind, bool neighbours, bool weighted, class T>
__global__ void __launch_bounds__(kBlock)
    forward(T* __restrict__ y, const T* __restrict__ x, std::int64_t rows, int m, float limit, RowNumbers weights) {
  const std::int64_t first = std::int64_t(blockIdx.x) * blockDim.y * kRows + threadIdx.y;
  std::uint32_t w[kRows];
#pragma unroll
  for (int u = 0; u < kRows; ++u)
    if (const std::int64_t r = first + u * blockDim.y; weighted && r < rows) w[u] = ask_number(weights, r);
  for (int at = threadIdx.x * kWidth; at < m; at += blockDim.x * kWidth) {
    float gate[kRows][kWidth], up[kRows][kWidth];
#pragma unroll
    for (int u = 0; u < kRows; ++u)
      if (const std::int64_t r = first + u * blockDim.y; r < rows) load_pairs<neighbours>(gate[u], up[u], x + r * 2 * m, m, at);
#pragma unroll
    for (int u = 0; u < kRows; ++u)
      if (const std::int64_t r = first + u * blockDim.y; r < rows) {
        float out[kWidth];
        const float factor = weighted ? number(weights, w[u]) : 1;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          float g = gate[u][i], p = up[u][i];
          if (limit > 0) g = at_most(g, limit), p = -at_most(-at_most(p, limit), limit);
          if (kind == Activation::clamped_swiglu) p += 1;
          out[i] = activated<kind, sizeof(T) == 2>(g).y * p;
          if (weighted) out[i] *= factor;
        }
        store(out, y + r * m + at);
      }
  }
}

// Weighted: what the threads of a row have of its sum is added by a warp.
template <Activation kind, bool neighbours, bool weighted, class T>
__global__ void __launch_bounds__(kBlock) backward(T* __restrict__ dx, const T* __restrict__ x, const T* __restrict__ dy, std::int64_t rows,
                                                   int m, float limit, RowNumbers weights, RowNumbers dweights) {
  const std::int64_t first = std::int64_t(blockIdx.x) * blockDim.y * kRows + threadIdx.y;
  std::uint32_t w[kRows];
  float dw[kRows] = {};
#pragma unroll
  for (int u = 0; u < kRows; ++u)
    if (const std::int64_t r = first + u * blockDim.y; weighted && r < rows) w[u] = ask_number(weights, r);
  for (int at = threadIdx.x * kWidth; at < m; at += blockDim.x * kWidth) {
    float gate[kRows][kWidth], up[kRows][kWidth], d[kRows][kWidth];
#pragma unroll
    for (int u = 0; u < kRows; ++u)
      if (const std::int64_t r = first + u * blockDim.y; r < rows) {
        load_pairs<neighbours>(gate[u], up[u], x + r * 2 * m, m, at);
        load(d[u], dy + r * m + at);
      }
#pragma unroll
    for (int u = 0; u < kRows; ++u)
      if (const std::int64_t r = first + u * blockDim.y; r < rows) {
        const float factor = weighted ? number(weights, w[u]) : 1;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          float g = gate[u][i], p = up[u][i];
          const bool gate_held = limit > 0 && g > limit, up_held = limit > 0 && fabsf(p) > limit;
          if (limit > 0) g = at_most(g, limit), p = -at_most(-at_most(p, limit), limit);
          if (kind == Activation::clamped_swiglu) p += 1;
          const Activated a = activated<kind, sizeof(T) == 2>(g);
          if (weighted) dw[u] += d[u][i] * a.y * p, d[u][i] *= factor;
          gate[u][i] = gate_held ? 0 : d[u][i] * p * a.dy;
          up[u][i] = up_held ? 0 : d[u][i] * a.y;
        }
        store_pairs<neighbours>(gate[u], up[u], dx + r * 2 * m, m, at);
      }
  }
  if constexpr (weighted) {
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

// f(kind, neighbours, weighted) as constants of the compiler.
template <Activation kind, class F>
void with_layout(const Gated& gated, F&& f) {
  if (gated.weights.data)
    gated.neighbours ? f.template operator()<kind, true, true>() : f.template operator()<kind, false, true>();
  else
    gated.neighbours ? f.template operator()<kind, true, false>() : f.template operator()<kind, false, false>();
}
template <class F>
void with_constants(const Gated& gated, F&& f) {
  switch (gated.activation) {
    case Activation::silu:
      return with_layout<Activation::silu>(gated, f);
    case Activation::gelu:
      return with_layout<Activation::gelu>(gated, f);
    case Activation::gelu_tanh:
      return with_layout<Activation::gelu_tanh>(gated, f);
    case Activation::relu:
      return with_layout<Activation::relu>(gated, f);
    case Activation::clamped_swiglu:
      return with_layout<Activation::clamped_swiglu>(gated, f);
  }
}

template <class T>
void launch_forward(void* y, const void* x, const Gated& g, gpuStream_t stream) {
  const dim3 block = block_for(g.m / kWidth);
  with_constants(g, [&]<Activation kind, bool neighbours, bool weighted>() {
    forward<kind, neighbours, weighted><<<num_blocks(g.rows, block.y * kRows), block, 0, stream>>>(
        static_cast<T*>(y), static_cast<const T*>(x), g.rows, static_cast<int>(g.m), g.limit, g.weights);
  });
}
template <class T>
void launch_backward(void* dx, const void* x, const void* dy, const Gated& g, gpuStream_t stream) {
  const dim3 block = block_for(g.m / kWidth);
  with_constants(g, [&]<Activation kind, bool neighbours, bool weighted>() {
    backward<kind, neighbours, weighted><<<num_blocks(g.rows, block.y * kRows), block, 0, stream>>>(
        static_cast<T*>(dx), static_cast<const T*>(x), static_cast<const T*>(dy), g.rows, static_cast<int>(g.m), g.limit, g.weights,
        g.dweights);
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
