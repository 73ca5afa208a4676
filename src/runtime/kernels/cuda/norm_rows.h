#pragma once
// What norm.cu, norm_grad.cu and rotate.cu share: how threads divide rows among themselves.
//
// A block has groups of threads [groups, width]. A group, of a power of two, takes kRows rows at a time, and a thread kChunks accesses of
// 16 bytes of each: all are asked for before the first sum, and kept as they lie. Where heads are rotated a thread has two accesses of a
// head, whose channels are each other's partners, and the rows are heads of one token, so that its angles are read once.
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

struct RowShape {
  unsigned tokens, heads;    // without rotation one token whose heads are all rows
  unsigned x_pitch, y_pitch, dx_pitch;
  unsigned runs;    // of heads that are taken at a time, of a token
  int d, j, width;
  float one_over_d, eps;
  const float *cos, *sin;
};

// What a group takes at a time: a run of heads of a token. Runs are numbered token by token; a loop adds its step to that of the first one,
// without a division each.
struct Run {
  unsigned token, index;
};
template <bool kRotate>
__device__ Run run_of(const RowShape& s, unsigned number) {
  if constexpr (!kRotate) return {0, number};
  return {number / s.runs, number % s.runs};
}
template <bool kRotate>
__device__ Run after(const Run& a, const Run& step, const RowShape& s) {
  Run sum = {a.token + step.token, a.index + step.index};
  if (kRotate && sum.index >= s.runs) sum.index -= s.runs, ++sum.token;
  return sum;
}

// The rows of a run: which is the first one, and how many there are, none beyond the last token.
struct Rows {
  unsigned token, head;
  int count;

  // Where the first one begins in a tensor of so many elements from a token to the next.
  __device__ std::int64_t at(unsigned pitch, const RowShape& s) const { return std::int64_t{token} * pitch + std::int64_t{head} * s.d; }
};
template <int kRows>
__device__ Rows rows_of(const RowShape& s, const Run& run) {
  const unsigned head = run.index * kRows, left = run.token < s.tokens && head < s.heads ? s.heads - head : 0;
  return {run.token, head, static_cast<int>(min(left, unsigned{kRows}))};
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

// cos and sin of the pairs of a thread; 1 and 0 where its channels pass or there is no row.
template <int n>
__device__ void load_angles(float (&c)[n], float (&s)[n], const RowShape& shape, const Rows& rows, int lane) {
#pragma unroll
  for (int i = 0; i < n; ++i) c[i] = 1, s[i] = 0;
  if (rows.count == 0 || lane * n >= shape.j) return;
  const std::int64_t at = std::int64_t{rows.token} * shape.j + lane * n;
  load(c, shape.cos + at);
  load(s, shape.sin + at);
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

// Sums over the threads of a group; every one of them gets them. All threads of the block call it, a loop with `turn` 0 and 1 in turns: the
// sums before these may still be read.
template <int count>
__device__ void row_sums(float (&x)[count], int width, int turn = 0) {
  for (int lanes = min(width, kWarp) / 2; lanes > 0; lanes /= 2)
#pragma unroll
    for (int i = 0; i < count; ++i) x[i] += __shfl_xor_sync(0xffffffffu, x[i], lanes);
  if (width <= kWarp) return;
  __shared__ float of_warps[2][count][kWarps];
  const int warps = width / kWarp, first = threadIdx.y * warps;
  if (threadIdx.x % kWarp == 0)
#pragma unroll
    for (int i = 0; i < count; ++i) of_warps[turn][i][first + threadIdx.x / kWarp] = x[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < count; ++i) x[i] = 0;
#pragma unroll 1
  for (int k = first; k < first + warps; k += 2)    // of a power of two, two at least
#pragma unroll
    for (int i = 0; i < count; ++i) x[i] += of_warps[turn][i][k] + of_warps[turn][i][k + 1];
}

// The number of chunks for which kernels are compiled, and the threads of a row that go with it.
struct RowLayout {
  int width, chunks;
  int groups(const Cut& cut) const { return width < cut.threads ? cut.threads / width : 1; }    // of a block
  dim3 block(const Cut& cut) const { return dim3(width, groups(cut)); }
};
// narrow: four chunks of a row rather than eight, where a block has threads enough: for kernels that keep much of each.
inline RowLayout row_layout(const NormRows& rows, bool narrow) {
  const std::int64_t all = accesses(rows.type, rows.d);
  if (rows.cos) return {power_of_two_from(all / 2), 2};
  const int chunks = all <= kWarp ? 1 : all <= 4 * (narrow ? kMaxThreads : kWarp) ? 4 : 8;
  return {power_of_two_from((all + chunks - 1) / chunks), chunks};
}
inline RowShape row_shape(const NormRows& rows, const RowLayout& layout, const Cut& cut) {
  const bool rotate = rows.cos;
  const auto heads = static_cast<unsigned>(rotate ? rows.heads : rows.tokens * rows.heads);
  const auto pitch = [&](std::int64_t given) { return static_cast<unsigned>(given > 0 ? given : rows.heads * rows.d); };
  return {rotate ? static_cast<unsigned>(rows.tokens) : 1,
          heads,
          pitch(rows.x_pitch),
          pitch(rows.y_pitch),
          pitch(rows.dx_pitch),
          num_blocks(heads, cut.rows),
          static_cast<int>(rows.d),
          static_cast<int>(rows.j),
          layout.width,
          1.f / static_cast<float>(rows.d),
          rows.eps,
          rows.cos,
          rows.sin};
}
// Blocks for which every group has a run, but for those of the last block.
inline unsigned blocks_of(const RowShape& s, int groups) { return num_blocks(std::int64_t{s.tokens} * s.runs, groups); }

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
