#include <algorithm>

#include "runtime/kernels/cuda/wide.h"
#include "runtime/kernels/experts.h"

namespace sheaf {
namespace {

// Thread r stands between rows r - 1 and r: the experts from that of the one to before that of the other end there.
__global__ void __launch_bounds__(kBlock) find_ends(std::int32_t* __restrict__ ends, std::int64_t experts,
                                                    const std::int32_t* __restrict__ expert, std::int64_t rows, std::int64_t begin) {
  const std::int64_t r = std::int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (r > rows) return;
  const std::int64_t from = r > 0 ? expert[r - 1] - begin : 0, to = r < rows ? expert[r] - begin : experts;
  for (std::int64_t e = from < 0 ? 0 : from; e < to && e < experts; ++e) ends[e] = std::int32_t(r);
}

constexpr int kWarps = kBlock / kWarp;

// Block (x, y, z): kWarp chunks of expert y, of the z-th part of its rows; out [parts, experts, d]. Warp i sums the rows i, i + kWarps, ...
// of the part, then the first one sums the warps.
template <class Out, class T>
__global__ void __launch_bounds__(kBlock) sum_rows(Out* __restrict__ out, const T* __restrict__ rows, RowSums s) {
  __shared__ float sums[kWarps][kWidth][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const std::int64_t at = (std::int64_t(blockIdx.x) * kWarp + lane) * kWidth, e = blockIdx.y;
  const std::int64_t begin = e > 0 ? s.ends[e - 1] : 0, end = s.ends ? s.ends[e] : s.rows, each = (end - begin + gridDim.z - 1) / gridDim.z;
  const std::int64_t first = begin + blockIdx.z * each, last = min(end, first + each);
  float sum[kWidth] = {};
  if (at < s.d) {
#pragma unroll 4
    for (std::int64_t r = first + warp; r < last; r += kWarps) {
      float v[kWidth];
      load(v, rows + r * s.pitch + at);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum[i] += v[i];
    }
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sums[warp][i][lane] = sum[i];
  __syncthreads();
  if (warp > 0 || at >= s.d) return;
#pragma unroll
  for (int w = 1; w < kWarps; ++w)
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum[i] += sums[w][i][lane];
  store(sum, out + (blockIdx.z * std::int64_t(gridDim.y) + e) * s.d + at);
}

constexpr int kTurns = 4;    // chunks of a thread

template <class Out>
__global__ void __launch_bounds__(kBlock)
    keep_experts_with_rows(Out* out, const std::uint16_t* x, const std::int32_t* __restrict__ ends, std::int64_t each) {
  const std::int64_t e = blockIdx.y;
  const bool empty = ends[e] == (e > 0 ? ends[e - 1] : 0);
  if (!empty && static_cast<const void*>(out) == x) return;
  const std::int64_t first = (std::int64_t(blockIdx.x) * kTurns * kBlock + threadIdx.x) * kWidth;
  float v[kTurns][kWidth] = {};
#pragma unroll
  for (int t = 0; t < kTurns; ++t)
    if (const std::int64_t at = first + t * kBlock * kWidth; !empty && at < each) load(v[t], x + e * each + at);
#pragma unroll
  for (int t = 0; t < kTurns; ++t)
    if (const std::int64_t at = first + t * kBlock * kWidth; at < each) store(v[t], out + e * each + at);
}

}    // namespace

const char* ends_of_experts_device(std::int32_t* ends, std::int64_t experts, const std::int32_t* expert, std::int64_t rows,
                                   std::int64_t begin, void* stream) {
  find_ends<<<num_blocks(rows + 1, kBlock), kBlock, 0, stream_of(stream)>>>(ends, experts, expert, rows, begin);
  return launch_error();
}

// Of experts few have many rows. Without any, blocks enough for every multiprocessor of the largest GPUs.
std::int64_t row_sum_parts(const RowSums& s) {
  constexpr std::int64_t kOfExpert = 8, kBlocks = 1024, kMost = 128;
  if (s.ends) return kOfExpert;
  const std::int64_t columns = num_blocks(s.d, kWarp * kWidth);
  return std::clamp(std::min(kBlocks / columns, s.rows / kWarps), std::int64_t{1}, kMost);
}

const char* sums_of_rows_device(void* out, float* parts, const void* rows, const RowSums& sums, void* stream) {
  if (sums.experts == 0 || sums.d == 0) return nullptr;
  const auto s = stream_of(stream);
  const std::int64_t count = row_sum_parts(sums), n = sums.experts * sums.d;
  const auto blocks = [](std::int64_t d, std::int64_t experts, std::int64_t of_each) {
    return dim3(num_blocks(d, kWarp * kWidth), static_cast<unsigned>(experts), static_cast<unsigned>(of_each));
  };
  with_type(sums.type,
            [&]<class T>() { sum_rows<<<blocks(sums.d, sums.experts, count), kBlock, 0, s>>>(parts, static_cast<const T*>(rows), sums); });
  // The parts are rows too.
  const RowSums of_parts{.type = FloatType::fp32, .out_type = sums.out_type, .rows = count, .d = n, .pitch = n};
  with_type(sums.out_type, [&]<class Out>() { sum_rows<<<blocks(n, 1, 1), kBlock, 0, s>>>(static_cast<Out*>(out), parts, of_parts); });
  return launch_error();
}

const char* of_experts_with_rows_device(void* out, FloatType out_type, const void* x, const std::int32_t* ends, std::int64_t experts,
                                        std::int64_t each, void* stream) {
  if (experts == 0 || each == 0) return nullptr;
  const dim3 blocks(num_blocks(each, kBlock * kTurns * kWidth), static_cast<unsigned>(experts));
  const auto* const from = static_cast<const std::uint16_t*>(x);
  with_type(out_type, [&]<class Out>() {
    keep_experts_with_rows<<<blocks, kBlock, 0, stream_of(stream)>>>(static_cast<Out*>(out), from, ends, each);
  });
  return launch_error();
}

}    // namespace sheaf
