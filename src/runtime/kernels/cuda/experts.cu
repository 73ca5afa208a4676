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

// Block (x, y, z): kWarp chunks of expert y, of the z-th part of its rows. Warp i sums the rows i, i + kWarps, ... of the part, then the
// first one sums the warps.
template <class T>
__global__ void __launch_bounds__(kBlock)
    sum_rows(float* __restrict__ parts, const T* __restrict__ rows, const std::int32_t* __restrict__ ends, std::int64_t d) {
  __shared__ float sums[kWarps][kWarp][kWidth];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const std::int64_t at = (std::int64_t(blockIdx.x) * kWarp + lane) * kWidth, e = blockIdx.y;
  const std::int64_t begin = e > 0 ? ends[e - 1] : 0, end = ends[e], each = (end - begin + gridDim.z - 1) / gridDim.z;
  const std::int64_t first = begin + blockIdx.z * each, last = min(end, first + each);
  float sum[kWidth] = {};
  if (at < d) {
#pragma unroll 4
    for (std::int64_t r = first + warp; r < last; r += kWarps) {
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
  store(sum, parts + (blockIdx.z * std::int64_t(gridDim.y) + e) * d + at);
}

// out [n] = the sum of parts [kPartsOfExpert, n], in their order.
template <class Out>
__global__ void __launch_bounds__(kBlock) add_parts(Out* __restrict__ out, const float* __restrict__ parts, std::int64_t n) {
  const std::int64_t at = (std::int64_t(blockIdx.x) * kBlock + threadIdx.x) * kWidth;
  if (at >= n) return;
  float v[kPartsOfExpert][kWidth], sum[kWidth] = {};
#pragma unroll
  for (int z = 0; z < kPartsOfExpert; ++z) load(v[z], parts + z * n + at);
#pragma unroll
  for (int z = 0; z < kPartsOfExpert; ++z)
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum[i] += v[z][i];
  store(sum, out + at);
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

const char* sums_of_experts_device(void* out, FloatType out_type, float* parts, const void* rows, FloatType type, const std::int32_t* ends,
                                   std::int64_t experts, std::int64_t d, void* stream) {
  if (experts == 0 || d == 0) return nullptr;
  const auto s = stream_of(stream);
  const dim3 blocks(num_blocks(d, kWarp * kWidth), static_cast<unsigned>(experts), kPartsOfExpert);
  if (type == FloatType::fp32)
    sum_rows<<<blocks, kBlock, 0, s>>>(parts, static_cast<const float*>(rows), ends, d);
  else
    sum_rows<<<blocks, kBlock, 0, s>>>(parts, static_cast<const std::uint16_t*>(rows), ends, d);
  const std::int64_t n = experts * d;
  const unsigned adding = num_blocks(n, kBlock * kWidth);
  if (out_type == FloatType::fp32)
    add_parts<<<adding, kBlock, 0, s>>>(static_cast<float*>(out), parts, n);
  else
    add_parts<<<adding, kBlock, 0, s>>>(static_cast<std::uint16_t*>(out), parts, n);
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
