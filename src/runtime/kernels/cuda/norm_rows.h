#pragma once
// What norm.cu and norm_grad.cu share: how threads divide rows among themselves.
//
// `width` threads, a power of two, take kRows rows at a time, and of each row kChunks accesses of 16 bytes: all are asked for before the
// first sum, and kept as they lie. Where heads are rotated a thread has two accesses of a head, whose channels are each other's partners,
// and the rows are heads of one token, so that its angles are read once.
#include "runtime/kernels/cuda/packed.h"
#include "runtime/kernels/norm_rope.h"

namespace sheaf {

inline constexpr int kMaxThreads = 256;
inline constexpr int kWarps = kMaxThreads / kWarp;

// How a kernel is cut: rows that a group of threads takes at a time, threads of a block unless a row has more, and threads for which
// registers of a multiprocessor suffice.
struct Cut {
  int rows, threads, resident;
};
template <int kChunks, bool kRotate>
constexpr Cut kNormCut = {.rows = kRotate || kChunks == 1 ? 4
                                  : kChunks == 4          ? 2
                                                          : 1,
                          .threads = 128,
                          .resident = kMaxThreads};
// For two rows and dw.
template <int kChunks, bool kRotate>
constexpr Cut kNormGradCut = {.rows = kRotate        ? 2
                                      : kChunks == 1 ? 4
                                                     : 1,
                              .threads = 128,
                              .resident = kChunks == 8 ? 384 : 512};

struct RowShape {
  std::int64_t tokens, heads;    // without rotation one token whose heads are all rows
  int d, j, width;
  float eps;
  const float *cos, *sin;
};

// Rows [first, first + count) of one token.
struct RowRun {
  std::int64_t first;
  int count;
  std::int64_t token;
};
template <int kRows, bool kRotate>
__device__ RowRun rows_of(const RowShape& s, unsigned item) {
  if constexpr (!kRotate) {
    const std::int64_t first = std::int64_t{item} * kRows;
    return {first, static_cast<int>(max(std::int64_t{0}, min(std::int64_t{kRows}, s.heads - first))), 0};
  } else {
    const unsigned heads = static_cast<unsigned>(s.heads), runs = (heads + kRows - 1) / kRows, token = item / runs;
    const unsigned head = item % runs * kRows;
    return {std::int64_t{token} * heads + head, token < s.tokens ? static_cast<int>(min(unsigned{kRows}, heads - head)) : 0, token};
  }
}

// First column of chunk c of a thread; d or more: it has none.
template <class T, bool kRotate>
__device__ int column_of(const RowShape& s, int lane, int c) {
  constexpr int n = kPacked<T>;
  if constexpr (!kRotate) return (c * s.width + lane) * n;
  const int at = lane * n, half = s.d / 2;
  if (at >= half) return s.d;
  return at < s.j ? at + c * s.j : s.j + at + c * (half - s.j);    // channels from 2j on pass: they have partners in name only
}

// cos and sin of the pairs of a thread; 1 and 0 where its channels pass.
template <int n>
__device__ void load_angles(float (&c)[n], float (&s)[n], const RowShape& shape, std::int64_t token, int lane) {
#pragma unroll
  for (int i = 0; i < n; ++i) c[i] = 1, s[i] = 0;
  if (lane * n >= shape.j) return;
  load(c, shape.cos + token * shape.j + lane * n);
  load(s, shape.sin + token * shape.j + lane * n);
}
template <int n>
__device__ void turn(float (&a)[n], float (&b)[n], const float (&c)[n], const float (&s)[n], float sign) {
#pragma unroll
  for (int i = 0; i < n; ++i) {
    const float u = a[i], v = b[i], t = sign * s[i];
    a[i] = u * c[i] - v * t;
    b[i] = v * c[i] + u * t;
  }
}

// Sums over the `width` threads that share rows; every one of them gets them. All threads of the block call it.
template <int count>
__device__ void row_sums(float (&x)[count], int width) {
  for (int lanes = min(width, kWarp) / 2; lanes > 0; lanes /= 2)
#pragma unroll
    for (int i = 0; i < count; ++i) x[i] += __shfl_xor_sync(0xffffffffu, x[i], lanes);
  if (width <= kWarp) return;
  __shared__ float of_warps[count][kWarps];
  const int warp = threadIdx.x / kWarp, warps = width / kWarp, first = warp / warps * warps;
  __syncthreads();    // the sums before these have been read
  if (threadIdx.x % kWarp == 0)
#pragma unroll
    for (int i = 0; i < count; ++i) of_warps[i][warp] = x[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < count; ++i) {
    x[i] = 0;
    for (int k = 0; k < warps; ++k) x[i] += of_warps[i][first + k];
  }
}

// The number of chunks for which kernels are compiled, and the threads of a row that go with it.
struct RowLayout {
  int width, chunks;
  int threads(const Cut& cut) const { return width > cut.threads ? width : cut.threads; }    // of a block
  int groups(const Cut& cut) const { return threads(cut) / width; }
};
inline int power_of_two_from(std::int64_t n) {
  int power = 1;
  while (power < n) power *= 2;
  return power;
}
inline std::int64_t accesses(FloatType type, std::int64_t d) { return d / (type == FloatType::fp32 ? 4 : 8); }
// narrow: four chunks of a row rather than eight, where a block has threads enough: for kernels that keep much of each.
inline RowLayout row_layout(const NormRows& rows, bool narrow) {
  const std::int64_t all = accesses(rows.type, rows.d);
  if (rows.cos) return {power_of_two_from(all / 2), 2};
  const int chunks = all <= kWarp ? 1 : all <= 4 * (narrow ? kMaxThreads : kWarp) ? 4 : 8;
  return {power_of_two_from((all + chunks - 1) / chunks), chunks};
}
inline RowShape row_shape(const NormRows& rows, const RowLayout& layout) {
  const bool rotate = rows.cos;
  return {rotate ? rows.tokens : 1,
          rotate ? rows.heads : rows.tokens * rows.heads,
          static_cast<int>(rows.d),
          static_cast<int>(rows.j),
          layout.width,
          rows.eps,
          rows.cos,
          rows.sin};
}
// What a group of threads takes at a time.
inline std::int64_t items_of(const RowShape& s, int rows_at_a_time) { return s.tokens * ((s.heads + rows_at_a_time - 1) / rows_at_a_time); }

// f(T, W, chunks, rotate) as constants of the compiler: T and W by null pointers.
template <int kChunks, bool kRotate, class F>
void with_types(const NormRows& rows, F&& f) {
  if (rows.type == FloatType::fp32)
    f.template operator()<float, float, kChunks, kRotate>();
  else if (rows.weight_type == FloatType::fp32)
    f.template operator()<std::uint16_t, float, kChunks, kRotate>();
  else
    f.template operator()<std::uint16_t, std::uint16_t, kChunks, kRotate>();
}
template <class F>
void with_constants(const NormRows& rows, const RowLayout& layout, F&& f) {
  if (rows.cos) return with_types<2, true>(rows, f);
  switch (layout.chunks) {
    case 1:
      return with_types<1, false>(rows, f);
    case 4:
      return with_types<4, false>(rows, f);
    default:
      return with_types<8, false>(rows, f);
  }
}

}    // namespace sheaf
