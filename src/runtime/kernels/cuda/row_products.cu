#include "runtime/kernels/cuda/packed.h"
#include "runtime/kernels/row_products.h"

namespace sheaf {
namespace {

constexpr int kRows = 4;    // of a thread; all are asked for before the first is computed, so no branch stands between

// Of a block x goes along a row, y through rows. Behind the last row the last is read again.
template <class T, class W, bool biased>
__global__ void __launch_bounds__(kBlock)
    scale(T* __restrict__ y, const T* __restrict__ x, const W* __restrict__ w, ExpertBiases biases, std::int64_t rows, int d) {
  constexpr int n = kPacked<T>;
  const std::int64_t first = std::int64_t(blockIdx.x) * blockDim.y * kRows + threadIdx.y;
  for (int at = threadIdx.x * n; at < d; at += blockDim.x * n) {
    uint4 packed[kRows], added[kRows];
    W factor[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const std::int64_t r = min(first + u * blockDim.y, rows - 1);
      packed[u] = load_packed(x + r * d + at);
      if constexpr (is_given<W>) factor[u] = w[r];
      if constexpr (biased) added[u] = load_packed(biases_of<T>(biases, r, d) + at);
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u)
      if (const std::int64_t r = first + u * blockDim.y; r < rows) {
        float v[n];
        unpack<T>(v, packed[u]);
        if constexpr (biased) add_packed<T>(v, added[u]);
        if constexpr (is_given<W>)
#pragma unroll
          for (int i = 0; i < n; ++i) v[i] *= to_float(factor[u]);
        store_packed(pack<T>(v), y + r * d + at);
      }
  }
}

// x of a block goes along a row alone, y through rows.
template <class DW, class T, class W>
__global__ void __launch_bounds__(kBlock)
    scale_grad(T* __restrict__ dx, DW* __restrict__ dw, const T* __restrict__ x, const T* __restrict__ dy, const W* __restrict__ w,
               ExpertBiases biases, std::int64_t rows, int d) {
  constexpr int n = kPacked<T>;
  const std::int64_t r = std::int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  float sum = 0;
  if (r < rows) {
    const float factor = to_float(w[r]);
#pragma unroll 4
    for (int at = threadIdx.x * n; at < d; at += blockDim.x * n) {
      const uint4 row = load_packed(x + r * d + at), grad = load_packed(dy + r * d + at),
                  added = load_packed(biases_of<T>(biases, r, d) + at);
      float v[n], g[n];
      unpack<T>(v, row), unpack<T>(g, grad);
      add_packed<T>(v, added);
#pragma unroll
      for (int i = 0; i < n; ++i) sum += g[i] * v[i], g[i] *= factor;
      store_packed(pack<T>(g), dx + r * d + at);
    }
  }
  sum = sum_of_lanes(sum, blockDim.x);
  if (r < rows && threadIdx.x == 0) store(sum, dw + r);
}

// x of a block goes along a row alone, y through rows.
template <class Y, class T>
__global__ void __launch_bounds__(kBlock)
    dot(Y* __restrict__ y, const T* __restrict__ a, const T* __restrict__ b, std::int64_t rows, int d) {
  const std::int64_t r = std::int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  float sum = 0;
  if (r < rows) {
#pragma unroll 4
    for (int at = threadIdx.x * kWidth; at < d; at += blockDim.x * kWidth) {
      float v[kWidth], w[kWidth];
      load(v, a + r * d + at);
      load(w, b + r * d + at);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum += v[i] * w[i];
    }
  }
  sum = sum_of_lanes(sum, blockDim.x);
  if (r < rows && threadIdx.x == 0) store(sum, y + r);
}

template <class T, class W, bool biased>
void launch_scale(void* y, const void* x, const void* w, const ExpertBiases& biases, std::int64_t rows, std::int64_t d,
                  gpuStream_t stream) {
  const dim3 block = block_for(d / kPacked<T>);
  scale<T, W, biased><<<num_blocks(rows, block.y * kRows), block, 0, stream>>>(static_cast<T*>(y), static_cast<const T*>(x),
                                                                               static_cast<const W*>(w), biases, rows, static_cast<int>(d));
}

// x goes through a row alone: a warp, or a part of one.
dim3 block_of_sums(std::int64_t chunks) {
  const auto x = static_cast<unsigned>(chunks < kWarp ? power_of_two_from(chunks) : kWarp);
  return dim3(x, kBlock / x);
}

template <class Y, class T>
void launch_dot(void* y, const void* a, const void* b, std::int64_t rows, std::int64_t d, gpuStream_t stream) {
  const dim3 block = block_of_sums(d / kWidth);
  dot<<<num_blocks(rows, block.y), block, 0, stream>>>(static_cast<Y*>(y), static_cast<const T*>(a), static_cast<const T*>(b), rows,
                                                       static_cast<int>(d));
}

}    // namespace

const char* scale_rows_device(void* y, const void* x, FloatType type, const void* w, FloatType w_type, const ExpertBiases& biases,
                              std::int64_t rows, std::int64_t d, void* stream) {
  if (rows == 0 || d == 0) return nullptr;
  with_type(type, [&]<class T>() {
    if (!w) return launch_scale<T, None, true>(y, x, w, biases, rows, d, stream_of(stream));
    with_type(w_type, [&]<class W>() {
      (biases.data ? launch_scale<T, W, true> : launch_scale<T, W, false>)(y, x, w, biases, rows, d, stream_of(stream));
    });
  });
  return launch_error();
}

const char* scale_rows_grad_device(void* dx, void* dw, FloatType dw_type, const void* x, const void* dy, FloatType type, const void* w,
                                   FloatType w_type, const ExpertBiases& biases, std::int64_t rows, std::int64_t d, void* stream) {
  if (rows == 0 || d == 0) return nullptr;
  with_type(type, [&]<class T>() {
    with_type(w_type, [&]<class W>() {
      with_type(dw_type, [&]<class DW>() {
        const dim3 block = block_of_sums(d / kPacked<T>);
        scale_grad<<<num_blocks(rows, block.y), block, 0, stream_of(stream)>>>(static_cast<T*>(dx), static_cast<DW*>(dw),
                                                                               static_cast<const T*>(x), static_cast<const T*>(dy),
                                                                               static_cast<const W*>(w), biases, rows, static_cast<int>(d));
      });
    });
  });
  return launch_error();
}

const char* dot_rows_device(void* y, FloatType y_type, const void* a, const void* b, FloatType type, std::int64_t rows, std::int64_t d,
                            void* stream) {
  if (rows == 0) return nullptr;
  const bool wide = type == FloatType::fp32;
  const auto s = stream_of(stream);
  if (y_type == FloatType::fp32)
    (wide ? launch_dot<float, float> : launch_dot<float, std::uint16_t>)(y, a, b, rows, d, s);
  else
    (wide ? launch_dot<std::uint16_t, float> : launch_dot<std::uint16_t, std::uint16_t>)(y, a, b, rows, d, s);
  return launch_error();
}

}    // namespace sheaf
