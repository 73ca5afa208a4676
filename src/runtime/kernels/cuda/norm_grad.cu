#include <algorithm>

#include "runtime/kernels/cuda/norm_rows.h"

namespace sheaf {
namespace {

// Registers for a row, dw and either dsum or w and the next row.
template <int kChunks, bool kRotate, bool kAdd>
constexpr Cut kNormGradCut = {.rows = kChunks == 1 ? 2 : 1,
                              .threads = 128,
                              .resident = kChunks == 8            ? kMaxThreads
                                          : kChunks == 4 && !kAdd ? 384
                                                                  : 512};

// w of the columns of an access to x, as it lies.
template <class T, class W>
struct Weights {
  static constexpr int kAccesses = kPacked<T> / kPacked<W>;
  uint4 at[kAccesses] = {};

  __device__ void load(const W* w) {
#pragma unroll
    for (int i = 0; i < kAccesses; ++i) at[i] = load_packed(w + i * kPacked<W>);
  }
  __device__ void get(float (&v)[kPacked<T>]) {
#pragma unroll
    for (int i = 0; i < kAccesses; ++i) {
      float part[kPacked<W>];
      forget_unpacked(at[i]);
      unpack<W>(part, at[i]);
#pragma unroll
      for (int k = 0; k < kPacked<W>; ++k) v[i * kPacked<W> + k] = part[k];
    }
  }
};

// Blocks go through runs of rows in turns; dw of its rows is summed in each thread, then over the groups of the block.
template <class T, class W, int kChunks, bool kRotate, bool kAdd>
__global__ void __launch_bounds__((kNormGradCut<kChunks, kRotate, kAdd>.resident))
    norm_grad(T* __restrict__ dx, float* __restrict__ dw_parts, const T* __restrict__ x, const W* __restrict__ w, const T* __restrict__ dy,
              const T* __restrict__ dsum, RowShape s) {
  constexpr int n = kPacked<T>, kRows = kNormGradCut<kChunks, kRotate, kAdd>.rows, kStep = kRotate ? 2 : 1;
  // The next run is asked for before the sums of this one, and w is kept, if there are registers for it. Where dsum is read, too, there is
  // enough on its way without.
  constexpr bool kAhead = !kAdd && kChunks <= 4;
  extern __shared__ __align__(16) float sums[];    // [groups, d] if there are several
  const int lane = threadIdx.x, group = threadIdx.y, groups = blockDim.y;
  const auto column = [&](int c) { return column_of<T, kRotate>(s, lane, c); };
  const auto live = [&](const Rows& rows, int u, int c) { return u < rows.count && column(c) < s.d; };

  struct Read {
    Rows rows;
    uint4 x[kRows][kChunks], dy[kRows][kChunks], dsum[kAdd ? kRows : 1][kAdd ? kChunks : 1];
    float cos[kRotate ? n : 1], sin[kRotate ? n : 1];
  };
  const auto ask = [&](const Run& run) {
    Read to = {rows_of<kRows>(s, run)};
    const T* const from = x + to.rows.at(s.x_pitch, s);
    const T* const of_y = dy + to.rows.at(s.y_pitch, s);
#pragma unroll
    for (int u = 0; u < kRows; ++u)
#pragma unroll
      for (int c = 0; c < kChunks; ++c)
        if (live(to.rows, u, c)) {
          const int at = u * s.d + column(c);
          to.x[u][c] = load_packed(from + at);
          to.dy[u][c] = load_packed(of_y + at);
          if constexpr (kAdd) to.dsum[u][c] = load_packed(dsum + to.rows.at(0, s) + at);    // one token: nothing is rotated
        }
    if constexpr (kRotate) load_angles(to.cos, to.sin, s, to.rows, lane);
    return to;
  };
  const auto weights = [&](int c) {
    Weights<T, W> of_chunk;
    if (column(c) < s.d) of_chunk.load(w + column(c));
    return of_chunk;
  };
  Weights<T, W> kept[kChunks];
  if constexpr (kAhead)
#pragma unroll
    for (int c = 0; c < kChunks; ++c) kept[c] = weights(c);

  float dw[kChunks][n] = {};
  const unsigned first = blockIdx.x * groups + group, step = gridDim.x * groups, all = s.tokens * s.runs;
  const Run steps = run_of<kRotate>(s, step);
  Run run = run_of<kRotate>(s, first);
  Read next;
  if constexpr (kAhead) next = ask(run);
  int odd = 0;
  for (unsigned i = first - group; i < all; i += step, odd ^= 1) {    // the same for all threads of the block
    Read now;
    if constexpr (kAhead)
      now = next;
    else
      now = ask(run);
    run = after<kRotate>(run, steps, s);
    if constexpr (kAhead) next = ask(run);
    // x, and t's factors w and dy, of chunks c to c + kStep of row u.
    const auto take = [&](float(&a)[kStep][n], float(&b)[kStep][n], float(&scale)[kStep][n], int u, int c) {
#pragma unroll
      for (int k = 0; k < kStep; ++k) {
        unpack<T>(a[k], now.x[u][c + k]);
        unpack<T>(b[k], now.dy[u][c + k]);
        if constexpr (kAhead)
          kept[c + k].get(scale[k]);
        else
          weights(c + k).get(scale[k]);
      }
      if constexpr (kRotate) turn(b[0], b[1], now.cos, now.sin, -1);
    };

    float totals[2 * kRows] = {};    // of x^2, of t x
#pragma unroll
    for (int u = 0; u < kRows; ++u)
#pragma unroll
      for (int c = 0; c < kChunks; c += kStep) {
        float a[kStep][n], b[kStep][n], scale[kStep][n];
        take(a, b, scale, u, c);
#pragma unroll
        for (int k = 0; k < kStep; ++k) {
#pragma unroll
          for (int i = 0; i < n; ++i) totals[2 * u] += a[k][i] * a[k][i], totals[2 * u + 1] += b[k][i] * scale[k][i] * a[k][i];
          forget_unpacked(now.x[u][c + k]);
          forget_unpacked(now.dy[u][c + k]);
        }
      }
    row_sums(totals, s.width, odd);
    T* const to = dx + now.rows.at(s.dx_pitch, s);
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const float r = rsqrtf(totals[2 * u] * s.one_over_d + s.eps), of_x = totals[2 * u + 1] * s.one_over_d * r * r * r;
#pragma unroll
      for (int c = 0; c < kChunks; c += kStep) {
        float a[kStep][n], b[kStep][n], scale[kStep][n];
        take(a, b, scale, u, c);
#pragma unroll
        for (int k = 0; k < kStep; ++k) {
          float out[n], more[n];
          if constexpr (kAdd) unpack<T>(more, now.dsum[u][c + k]);
#pragma unroll
          for (int i = 0; i < n; ++i) {
            dw[c + k][i] += b[k][i] * (a[k][i] * r);
            out[i] = b[k][i] * scale[k][i] * r - a[k][i] * of_x;
            if constexpr (kAdd) out[i] += more[i];
          }
          if (live(now.rows, u, c + k)) store_packed(pack<T>(out), to + u * s.d + column(c + k));
        }
      }
    }
  }
  float* const part = dw_parts + std::int64_t{blockIdx.x} * s.d;
  float* const own = groups > 1 ? sums + group * s.d : part;
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    if (column(c) < s.d) store(dw[c], own + column(c));
  if (groups == 1) return;
  __syncthreads();
  for (int i = group * s.width + lane; i < s.d; i += groups * s.width) {
    float total = 0;
    for (int k = 0; k < groups; ++k) total += sums[k * s.d + i];
    part[i] = total;
  }
}

constexpr int kSide = 32;

// dw [d] = sum of parts [count, d]. A block has kSide columns.
__global__ void __launch_bounds__(kSide* kSide) add_parts(float* __restrict__ dw, const float* __restrict__ parts, int count, int d) {
  __shared__ float sums[kSide][kSide];
  const int column = blockIdx.x * kSide + threadIdx.x;
  float total = 0;
  if (column < d)
#pragma unroll 16
    for (int i = threadIdx.y; i < count; i += kSide) total += parts[std::int64_t{i} * d + column];
  sums[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y > 0 || column >= d) return;
#pragma unroll
  for (int i = 1; i < kSide; ++i) total += sums[i][threadIdx.x];
  dw[column] = total;
}

// As many blocks as run at a time on an H100 or H200, whatever the device, if there are rows for all: they fix the order of dw's sums.
unsigned grad_blocks(const RowShape& s, const RowLayout& layout, const Cut& cut) {
  constexpr int kMultiprocessors = 132;
  const int groups = layout.groups(cut);
  return std::min<unsigned>(blocks_of(s, groups), kMultiprocessors * (cut.resident / (groups * layout.width)));
}

}    // namespace

std::int64_t rms_norm_parts(const NormRows& rows) {
  const RowLayout layout = row_layout(rows, true);
  unsigned most = 0;
  with_constants(rows, layout, [&]<class T, class W, int kChunks, bool kRotate>() {
    for (const Cut& cut : {kNormGradCut<kChunks, kRotate, false>, kNormGradCut<kChunks, kRotate, true>})
      most = std::max(most, grad_blocks(row_shape(rows, layout, cut), layout, cut));
  });
  return most;
}

const char* rms_norm_grad_device(void* dx, float* dw, float* dw_parts, const void* x, const void* w, const void* dy, const void* dsum,
                                 const NormRows& rows, void* stream) {
  const RowLayout layout = row_layout(rows, true);
  const auto on = stream_of(stream);
  with_constants(rows, layout, [&]<class T, class W, int kChunks, bool kRotate>() {
    const auto launch = [&]<bool kAdd>() {
      constexpr Cut cut = kNormGradCut<kChunks, kRotate, kAdd>;
      const RowShape shape = row_shape(rows, layout, cut);
      const unsigned blocks = grad_blocks(shape, layout, cut);
      const int groups = layout.groups(cut);
      const std::size_t shared = groups > 1 ? groups * rows.d * sizeof(float) : 0;    // at most 32 KiB
      norm_grad<T, W, kChunks, kRotate, kAdd>
          <<<blocks, layout.block(cut), shared, on>>>(static_cast<T*>(dx), dw_parts, static_cast<const T*>(x), static_cast<const W*>(w),
                                                      static_cast<const T*>(dy), static_cast<const T*>(dsum), shape);
      add_parts<<<num_blocks(rows.d, kSide), dim3(kSide, kSide), 0, on>>>(dw, dw_parts, static_cast<int>(blocks), shape.d);
    };
    if constexpr (!kRotate)
      if (dsum) return launch.template operator()<true>();
    launch.template operator()<false>();
  });
  return launch_error();
}

}    // namespace sheaf
