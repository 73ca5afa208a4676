#include "runtime/kernels/cuda/norm_rows.h"

namespace sheaf {
namespace {

constexpr Cut kCut = {.rows = 4, .threads = 128, .resident = kMaxThreads};
constexpr int kRows = kCut.rows;

template <class T, bool biased>
__global__ void __launch_bounds__(kCut.resident)
    rotate(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ bias, RowShape s, float sign) {
  constexpr int n = kPacked<T>;
  const int lane = threadIdx.x;
  const Rows rows = rows_of<kRows>(s, run_of<true>(s, blockIdx.x * blockDim.y + threadIdx.y));
  if (rows.count == 0 || column_of<T, true>(s, lane, 0) >= s.d) return;
  x += rows.at(s.x_pitch, s), y += rows.at(s.y_pitch, s);
  uint4 v[kRows][2], added[kRows][2];
#pragma unroll
  for (int u = 0; u < kRows; ++u)
#pragma unroll
    for (int c = 0; c < 2; ++c)
      if (u < rows.count) {
        v[u][c] = load_packed(x + u * s.d + column_of<T, true>(s, lane, c));
        if constexpr (biased) added[u][c] = load_packed(bias + (rows.head + u) * s.d + column_of<T, true>(s, lane, c));
      }
  float cos[n], sin[n];
  load_angles(cos, sin, s, rows, lane);
#pragma unroll
  for (int u = 0; u < kRows; ++u)
    if (u < rows.count) {
      float a[2][n];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        unpack<T>(a[c], v[u][c]);
        if constexpr (biased) add_packed<T>(a[c], added[u][c]);
      }
      turn(a[0], a[1], cos, sin, sign);
#pragma unroll
      for (int c = 0; c < 2; ++c) store_packed(pack<T>(a[c]), y + u * s.d + column_of<T, true>(s, lane, c));
    }
}

template <class T>
void launch(void* y, const void* x, const void* bias, const NormRows& rows, float sign, gpuStream_t stream) {
  const RowLayout layout = row_layout(rows, false);
  const RowShape shape = row_shape(rows, layout, kCut);
  void (*const kernel)(T*, const T*, const T*, RowShape, float) = bias ? rotate<T, true> : rotate<T, false>;
  kernel<<<blocks_of(shape, layout.groups(kCut)), layout.block(kCut), 0, stream>>>(static_cast<T*>(y), static_cast<const T*>(x),
                                                                                   static_cast<const T*>(bias), shape, sign);
}

}    // namespace

const char* rotate_device(void* y, const void* x, const void* bias, const NormRows& rows, bool inverse, void* stream) {
  (rows.type == FloatType::fp32 ? launch<float> : launch<std::uint16_t>)(y, x, bias, rows, inverse ? -1.f : 1.f, stream_of(stream));
  return launch_error();
}

}    // namespace sheaf
