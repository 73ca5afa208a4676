#include "runtime/kernels/cuda/packed.h"
#include "runtime/kernels/row_products.h"

namespace sheaf {
namespace {

constexpr int kRows = 4;    // of a thread; all are asked for before the first is computed, so no branch stands between

// Of a block x goes along a row, y through rows. Behind the last row the last is read again.
template <class T, class W>
__global__ void __launch_bounds__(kBlock)
    scale(T* __restrict__ y, const T* __restrict__ x, const W* __restrict__ w, std::int64_t rows, int d) {
  constexpr int n = kPacked<T>;
  const std::int64_t first = std::int64_t(blockIdx.x) * blockDim.y * kRows + threadIdx.y;
  for (int at = threadIdx.x * n; at < d; at += blockDim.x * n) {
    uint4 packed[kRows];
    W factor[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const std::int64_t r = min(first + u * blockDim.y, rows - 1);
      packed[u] = load_packed(x + r * d + at);
      factor[u] = w[r];
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u)
      if (const std::int64_t r = first + u * blockDim.y; r < rows) {
        float v[n];
        unpack<T>(v, packed[u]);
#pragma unroll
        for (int i = 0; i < n; ++i) v[i] *= to_float(factor[u]);
        store_packed(pack<T>(v), y + r * d + at);
      }
  }
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

template <class T, class W>
void launch_scale(void* y, const void* x, const void* w, std::int64_t rows, std::int64_t d, gpuStream_t stream) {
  const dim3 block = block_for(d / kPacked<T>);
  scale<<<num_blocks(rows, block.y * kRows), block, 0, stream>>>(static_cast<T*>(y), static_cast<const T*>(x), static_cast<const W*>(w),
                                                                 rows, static_cast<int>(d));
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

const char* scale_rows_device(void* y, const void* x, FloatType type, const void* w, FloatType w_type, std::int64_t rows, std::int64_t d,
                              void* stream) {
  if (rows == 0 || d == 0) return nullptr;
  const bool wide = w_type == FloatType::fp32;
  const auto s = stream_of(stream);
  if (type == FloatType::fp32)
    (wide ? launch_scale<float, float> : launch_scale<float, std::uint16_t>)(y, x, w, rows, d, s);
  else
    (wide ? launch_scale<std::uint16_t, float> : launch_scale<std::uint16_t, std::uint16_t>)(y, x, w, rows, d, s);
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
