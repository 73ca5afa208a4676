#include "runtime/kernels/cuda/norm_rows.h"

namespace sheaf {
namespace {

// Blocks go through runs of rows in turns; dw of its rows is summed in each thread, then over the groups of the block.
template <class T, class W, int kChunks, bool kRotate, bool kAdd>
__global__ void __launch_bounds__(kNormGradCut<kChunks, kRotate>.resident)
    norm_grad(T* __restrict__ dx, float* __restrict__ dw_parts, const T* __restrict__ x, const W* __restrict__ w, const T* __restrict__ dy,
              const T* __restrict__ dsum, RowShape s, unsigned items) {
  constexpr int n = kPacked<T>, kRows = kNormGradCut<kChunks, kRotate>.rows, kStep = kRotate ? 2 : 1;
  extern __shared__ __align__(16) float sums[];    // [groups, d] if there are several
  const int lane = threadIdx.x % s.width, group = threadIdx.x / s.width, groups = blockDim.x / s.width;
  const auto column = [&](int c) { return column_of<T, kRotate>(s, lane, c); };
  float dw[kChunks][n] = {};
  for (unsigned first = blockIdx.x * groups; first < items; first += gridDim.x * groups) {    // the same for all threads of the block
    const RowRun rows = rows_of<kRows, kRotate>(s, first + group);
    const auto live = [&](int u, int c) { return u < rows.count && column(c) < s.d; };
    const auto place = [&](int u, int c) { return (rows.first + u) * s.d + column(c); };
    // Of dsum as well, if there are registers for it: the sums of the row need not be waited for.
    constexpr bool kAhead = kAdd && kChunks <= 4 && kRows == 1;
    uint4 v[kRows][kChunks] = {}, g[kRows][kChunks] = {}, ahead[kAhead ? kChunks : 1] = {};
#pragma unroll
    for (int u = 0; u < kRows; ++u)
#pragma unroll
      for (int c = 0; c < kChunks; ++c)
        if (live(u, c)) {
          v[u][c] = load_packed(x + place(u, c));
          g[u][c] = load_packed(dy + place(u, c));
          if constexpr (kAhead) ahead[c] = load_packed(dsum + place(u, c));
        }
    float cos[n] = {}, sin[n] = {};    // finite where there is no row: its zeros are turned, too
    if constexpr (kRotate)
      if (rows.count > 0) load_angles(cos, sin, s, rows.token, lane);
    // x, and t's factors w and dy, of chunks c to c + kStep of row u.
    const auto take = [&](float(&a)[kStep][n], float(&b)[kStep][n], float(&scale)[kStep][n], int u, int c) {
#pragma unroll
      for (int k = 0; k < kStep; ++k) {
        unpack<T>(a[k], v[u][c + k]);
        unpack<T>(b[k], g[u][c + k]);
        if (column(c + k) < s.d) load(scale[k], w + column(c + k));
      }
      if constexpr (kRotate) turn(b[0], b[1], cos, sin, -1);
    };

    float totals[2 * kRows] = {};    // of x^2, of t x
#pragma unroll
    for (int u = 0; u < kRows; ++u)
#pragma unroll
      for (int c = 0; c < kChunks; c += kStep) {
        float a[kStep][n], b[kStep][n], scale[kStep][n] = {};
        take(a, b, scale, u, c);
#pragma unroll
        for (int k = 0; k < kStep; ++k) {
#pragma unroll
          for (int i = 0; i < n; ++i) totals[2 * u] += a[k][i] * a[k][i], totals[2 * u + 1] += b[k][i] * scale[k][i] * a[k][i];
          forget_unpacked(v[u][c + k]);
          forget_unpacked(g[u][c + k]);
        }
      }
    row_sums(totals, s.width);
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const float r = rsqrtf(totals[2 * u] / s.d + s.eps), of_x = totals[2 * u + 1] / s.d * r * r * r;
#pragma unroll
      for (int c = 0; c < kChunks; c += kStep) {
        float a[kStep][n], b[kStep][n], scale[kStep][n] = {};
        take(a, b, scale, u, c);
#pragma unroll
        for (int k = 0; k < kStep; ++k) {
          float out[n] = {};
          if constexpr (kAhead)
            unpack<T>(out, ahead[c + k]);
          else if constexpr (kAdd)
            if (live(u, c + k)) unpack<T>(out, load_packed(dsum + place(u, c + k)));
#pragma unroll
          for (int i = 0; i < n; ++i) {
            dw[c + k][i] += b[k][i] * (a[k][i] * r);
            out[i] += b[k][i] * scale[k][i] * r - a[k][i] * of_x;
          }
          if (live(u, c + k)) store_packed(pack<T>(out), dx + place(u, c + k));
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
  for (int i = threadIdx.x; i < s.d; i += blockDim.x) {
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
#pragma unroll 4
    for (int i = threadIdx.y; i < count; i += kSide) total += parts[std::int64_t{i} * d + column];
  sums[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y > 0 || column >= d) return;
  for (int i = 1; i < kSide; ++i) total += sums[i][threadIdx.x];
  dw[column] = total;
}

}    // namespace

// As many as run at a time on an H100 or H200, whatever the device, if there are rows for all: they fix the order of dw's sums.
std::int64_t rms_norm_parts(const NormRows& rows) {
  constexpr int kMultiprocessors = 132;
  const RowLayout layout = row_layout(rows, true);
  std::int64_t blocks = 0;
  with_constants(rows, layout, [&]<class T, class W, int kChunks, bool kRotate>() {
    constexpr Cut cut = kNormGradCut<kChunks, kRotate>;
    const std::int64_t most = kMultiprocessors * (cut.resident / layout.threads(cut));
    blocks = num_blocks(items_of(row_shape(rows, layout), cut.rows), layout.groups(cut));
    if (blocks > most) blocks = most;
  });
  return blocks;
}

const char* rms_norm_grad_device(void* dx, float* dw, float* dw_parts, const void* x, const void* w, const void* dy, const void* dsum,
                                 const NormRows& rows, void* stream) {
  const RowLayout layout = row_layout(rows, true);
  const RowShape shape = row_shape(rows, layout);
  const auto blocks = static_cast<unsigned>(rms_norm_parts(rows));
  const auto on = static_cast<gpuStream_t>(stream);
  with_constants(rows, layout, [&]<class T, class W, int kChunks, bool kRotate>() {
    constexpr Cut cut = kNormGradCut<kChunks, kRotate>;
    const auto items = static_cast<unsigned>(items_of(shape, cut.rows));
    const int groups = layout.groups(cut);
    const std::size_t shared = groups > 1 ? groups * rows.d * sizeof(float) : 0;    // at most 32 KiB
    const auto launch = [&](auto kernel) {
      kernel<<<blocks, layout.threads(cut), shared, on>>>(static_cast<T*>(dx), dw_parts, static_cast<const T*>(x), static_cast<const W*>(w),
                                                          static_cast<const T*>(dy), static_cast<const T*>(dsum), shape, items);
    };
    if constexpr (!kRotate)
      if (dsum) return launch(norm_grad<T, W, kChunks, kRotate, true>);
    launch(norm_grad<T, W, kChunks, kRotate, false>);
  });
  add_parts<<<num_blocks(rows.d, kSide), dim3(kSide, kSide), 0, on>>>(dw, dw_parts, static_cast<int>(blocks), shape.d);
  return launch_error();
}

}    // namespace sheaf
