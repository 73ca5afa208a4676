#include "runtime/kernels/cuda/norm_rows.h"

namespace sheaf {
namespace {

template <int kChunks, bool kRotate>
constexpr Cut kNormCut = {.rows = kRotate || kChunks == 1 ? 4
                                  : kChunks == 4          ? 2
                                                          : 1,
                          .threads = 128,
                          .resident = kRotate ? 640 : kMaxThreads};

// To the type of weights, W.
template <class W, int n>
__device__ void round_to(float (&v)[n]) {
  if constexpr (sizeof(W) == 2)
#pragma unroll
    for (int i = 0; i < n; i += 2) {
      const std::uint32_t pair = to_bf16_pair(v[i], v[i + 1]);
      v[i] = from_bits(pair), v[i + 1] = __uint_as_float(pair & 0xffff0000u);
    }
}

template <class T, class W, int kChunks, bool kRotate, bool kAdd>
__global__ void __launch_bounds__((kNormCut<kChunks, kRotate>.resident))
    norm(T* __restrict__ y, T* __restrict__ sum, const T* __restrict__ x, const T* __restrict__ delta, const W* __restrict__ w,
         RowShape s) {
  constexpr int n = kPacked<T>, kRows = kNormCut<kChunks, kRotate>.rows, kStep = kRotate ? 2 : 1;
  const int lane = threadIdx.x;
  const Rows rows = rows_of<kRows>(s, run_of<kRotate>(s, blockIdx.x * blockDim.y + threadIdx.y));
  x += rows.at(s.x_pitch, s), y += rows.at(s.y_pitch, s);
  if constexpr (kAdd) delta += rows.at(0, s), sum += rows.at(0, s);    // one token: nothing is rotated
  const auto live = [&](int u, int c) { return u < rows.count && column_of<T, kRotate>(s, lane, c) < s.d; };
  const auto place = [&](int u, int c) { return u * s.d + column_of<T, kRotate>(s, lane, c); };

  uint4 v[kRows][kChunks] = {};
#pragma unroll
  for (int u = 0; u < kRows; ++u)
#pragma unroll
    for (int c = 0; c < kChunks; ++c)
      if (live(u, c)) v[u][c] = load_packed(x + place(u, c));
  float cos[n], sin[n];
  if constexpr (kRotate) load_angles(cos, sin, s, rows, lane);
  if constexpr (kAdd) {
    uint4 more[kRows][kChunks] = {};
#pragma unroll
    for (int u = 0; u < kRows; ++u)
#pragma unroll
      for (int c = 0; c < kChunks; ++c)
        if (live(u, c)) more[u][c] = load_packed(delta + place(u, c));
#pragma unroll
    for (int u = 0; u < kRows; ++u)
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        float a[n], b[n];
        unpack<T>(a, v[u][c]);
        unpack<T>(b, more[u][c]);
#pragma unroll
        for (int i = 0; i < n; ++i) a[i] += b[i];
        v[u][c] = pack<T>(a);
        if (live(u, c)) store_packed(v[u][c], sum + place(u, c));
      }
  }

  float r[kRows];
#pragma unroll
  for (int u = 0; u < kRows; ++u) {
    r[u] = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      float a[n];
      unpack<T>(a, v[u][c]);
#pragma unroll
      for (int i = 0; i < n; ++i) r[u] += a[i] * a[i];
      forget_unpacked(v[u][c]);
    }
  }
  row_sums(r, s.width);
  // A division: the compiler does not ask for w before it, so that registers suffice for more threads.
#pragma unroll
  for (int u = 0; u < kRows; ++u) r[u] = rsqrtf(r[u] / s.d + s.eps);

#pragma unroll
  for (int c = 0; c < kChunks; c += kStep) {
    float scale[kStep][n] = {};
#pragma unroll
    for (int k = 0; k < kStep; ++k)
      if (const int at = column_of<T, kRotate>(s, lane, c + k); at < s.d) load(scale[k], w + at);
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      float a[kStep][n];
#pragma unroll
      for (int k = 0; k < kStep; ++k) {
        unpack<T>(a[k], v[u][c + k]);
#pragma unroll
        for (int i = 0; i < n; ++i) a[k][i] *= r[u];
        round_to<W>(a[k]);
#pragma unroll
        for (int i = 0; i < n; ++i) a[k][i] *= scale[k][i];
      }
      if constexpr (kRotate) turn(a[0], a[1], cos, sin, 1);
#pragma unroll
      for (int k = 0; k < kStep; ++k)
        if (live(u, c + k)) store_packed(pack<T>(a[k]), y + place(u, c + k));
    }
  }
}

}    // namespace

bool norm_takes(FloatType type, std::int64_t d, std::int64_t j) {
  const std::int64_t all = accesses(type, d);
  return j > 0 ? d % 16 == 0 && j % 8 == 0 && 2 * j <= d && all / 2 <= kWarp : d % 8 == 0 && all <= 8 * kMaxThreads;
}

const char* rms_norm_device(void* y, void* sum, const void* x, const void* delta, const void* w, const NormRows& rows, void* stream) {
  const RowLayout layout = row_layout(rows, false);
  with_constants(rows, layout, [&]<class T, class W, int kChunks, bool kRotate>() {
    constexpr Cut cut = kNormCut<kChunks, kRotate>;
    const RowShape shape = row_shape(rows, layout, cut);
    const auto launch = [&](auto kernel) {
      kernel<<<blocks_of(shape, layout.groups(cut)), layout.block(cut), 0, stream_of(stream)>>>(
          static_cast<T*>(y), static_cast<T*>(sum), static_cast<const T*>(x), static_cast<const T*>(delta), static_cast<const W*>(w),
          shape);
    };
    if constexpr (!kRotate)
      if (delta) return launch(norm<T, W, kChunks, kRotate, true>);
    launch(norm<T, W, kChunks, kRotate, false>);
  });
  return launch_error();
}

}    // namespace sheaf
