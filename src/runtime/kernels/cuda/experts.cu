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

// Of a block x goes along a row, y through rows.
__global__ void __launch_bounds__(kBlock)
    copy_of_expert(uint4* __restrict__ rows, const uint4* __restrict__ w, const std::int32_t* __restrict__ expert, std::int64_t num_rows,
                   std::int64_t begin, int chunks) {
  const std::int64_t r = std::int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (r >= num_rows) return;
  const std::int64_t e = expert[r] - begin;
  for (int c = threadIdx.x; c < chunks; c += blockDim.x) rows[r * chunks + c] = w[e * chunks + c];
}

constexpr int kWarps = kBlock / kWarp;

// Block (x, y): kWarp chunks of expert y. Warp i sums the rows i, i + kWarps, ... of the expert, then the first one sums the warps.
template <class Out, class T>
__global__ void __launch_bounds__(kBlock)
    sum_rows(Out* __restrict__ out, const T* __restrict__ rows, const std::int32_t* __restrict__ ends, std::int64_t d) {
  __shared__ float sums[kWarps][kWarp][kWidth];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const std::int64_t at = (std::int64_t(blockIdx.x) * kWarp + lane) * kWidth, e = blockIdx.y, end = ends[e];
  float sum[kWidth] = {};
  if (at < d) {
#pragma unroll 4
    for (std::int64_t r = (e > 0 ? ends[e - 1] : 0) + warp; r < end; r += kWarps) {
      float v[kWidth];
      load(v, rows + r * d + at);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum[i] += v[i];
    }
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sums[warp][lane][i] = sum[i];
  __syncthreads();
  if (warp > 0 || at >= d) return;
  for (int w = 1; w < kWarps; ++w)
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum[i] += sums[w][lane][i];
  store(sum, out + e * d + at);
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

const char* rows_of_experts_device(void* rows, const void* w, const std::int32_t* expert, std::int64_t num_rows, std::int64_t begin,
                                   std::int64_t row_bytes, void* stream) {
  const std::int64_t chunks = row_bytes / 16;
  if (num_rows == 0 || chunks == 0) return nullptr;
  const dim3 block = block_for(chunks);
  copy_of_expert<<<num_blocks(num_rows, block.y), block, 0, stream_of(stream)>>>(static_cast<uint4*>(rows), static_cast<const uint4*>(w),
                                                                                 expert, num_rows, begin, static_cast<int>(chunks));
  return launch_error();
}

template <class Out, class T>
static void launch_sums(void* out, const void* rows, const std::int32_t* ends, std::int64_t experts, std::int64_t d, gpuStream_t stream) {
  const dim3 blocks(num_blocks(d, kWarp * kWidth), static_cast<unsigned>(experts));
  sum_rows<<<blocks, kBlock, 0, stream>>>(static_cast<Out*>(out), static_cast<const T*>(rows), ends, d);
}

const char* sums_of_experts_device(void* out, FloatType out_type, const void* rows, FloatType type, const std::int32_t* ends,
                                   std::int64_t experts, std::int64_t d, void* stream) {
  if (experts == 0 || d == 0) return nullptr;
  const bool wide = type == FloatType::fp32;
  if (out_type == FloatType::fp32)
    (wide ? launch_sums<float, float> : launch_sums<float, std::uint16_t>)(out, rows, ends, experts, d, stream_of(stream));
  else
    (wide ? launch_sums<std::uint16_t, float> : launch_sums<std::uint16_t, std::uint16_t>)(out, rows, ends, experts, d, stream_of(stream));
  return launch_error();
}

const char* of_experts_with_rows_device(void* out, FloatType out_type, const void* x, const std::int32_t* ends, std::int64_t experts,
                                        std::int64_t each, void* stream) {
  if (experts == 0 || each == 0) return nullptr;
  const dim3 blocks(num_blocks(each, kBlock * kTurns * kWidth), static_cast<unsigned>(experts));
  const auto* const from = static_cast<const std::uint16_t*>(x);
  if (out_type == FloatType::fp32)
    keep_experts_with_rows<<<blocks, kBlock, 0, stream_of(stream)>>>(static_cast<float*>(out), from, ends, each);
  else
    keep_experts_with_rows<<<blocks, kBlock, 0, stream_of(stream)>>>(static_cast<std::uint16_t*>(out), from, ends, each);
  return launch_error();
}

}    // namespace sheaf
