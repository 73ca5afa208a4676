#include "runtime/kernels/cuda/wide.h"
#include "runtime/kernels/routed.h"

namespace sheaf {
namespace {

constexpr int kRouteThreads = kWarp * kWarp;    // so that a warp can sum what the warps have
constexpr int kRouteEach = 4;                   // neighbours that a thread looks at together
constexpr unsigned kAll = 0xffffffffu;

// Inclusive sum over the lanes of a warp.
__device__ int sum_up_to(int x) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int lower = __shfl_up_sync(kAll, x, offset, kWarp);
    if (lane >= offset) x += lower;
  }
  return x;
}

// Sum over the threads before this one; total: over all of them. All threads of the block call it; of two calls in a row each has its own
// `shared`, one number per warp: what the first reads the second must not write.
__device__ int sum_before(int x, int& total, int* shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, here = sum_up_to(x);
  if (lane == kWarp - 1) shared[warp] = here;
  __syncthreads();
  const int warps = sum_up_to(shared[lane]), lower = __shfl_sync(kAll, warps, warp == 0 ? 0 : warp - 1, kWarp);
  total = __shfl_sync(kAll, warps, kWarp - 1, kWarp);
  return (warp == 0 ? 0 : lower) + here - x;
}

// Block i writes the rows of expert begin + i: behind those of the experts before it, which it counts first. The block behind the last
// expert marks what is free.
__global__ void __launch_bounds__(kRouteThreads)
    sort_by_expert(std::int32_t* __restrict__ slot, std::int32_t* __restrict__ expert, std::int64_t capacity,
                   const std::int32_t* __restrict__ ids, std::int64_t n, std::int32_t begin) {
  __shared__ int sums[2][kWarp];
  const std::int32_t mine = begin + std::int32_t(blockIdx.x);
  int before = 0, first = 0, turn = 0;
#pragma unroll 4
  for (std::int64_t i = threadIdx.x; i < n; i += kRouteThreads) {
    const std::int32_t id = ids[i];
    before += id >= begin && id < mine;
  }
  sum_before(before, first, sums[turn]);
  std::int64_t next = first;
  if (blockIdx.x == gridDim.x - 1) {
    for (std::int64_t r = next + threadIdx.x; r < capacity; r += kRouteThreads) slot[r] = -1, expert[r] = INT32_MAX;
    return;
  }
  for (std::int64_t base = 0; base < n; base += kRouteThreads * kRouteEach) {
    const std::int64_t i = base + threadIdx.x * kRouteEach;
    bool hit[kRouteEach];
    int hits = 0, total = 0;
#pragma unroll
    for (int q = 0; q < kRouteEach; ++q) hit[q] = i + q < n && ids[i + q] == mine, hits += hit[q];
    turn ^= 1;
    std::int64_t r = next + sum_before(hits, total, sums[turn]);
#pragma unroll
    for (int q = 0; q < kRouteEach; ++q) {
      if (!hit[q]) continue;
      if (r < capacity) slot[r] = std::int32_t(i + q), expert[r] = mine;
      ++r;
    }
    next += total;
  }
}

__global__ void __launch_bounds__(kBlock) invert(std::int32_t* __restrict__ row, const std::int32_t* __restrict__ slot, std::int64_t rows) {
  const std::int64_t r = std::int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (r < rows && slot[r] >= 0) row[slot[r]] = std::int32_t(r);
}

// Of a block x goes along a token, y through tokens.
__global__ void __launch_bounds__(kBlock) scatter(uint4* __restrict__ rows, const uint4* __restrict__ x, Tokens tokens, int chunks) {
  const std::int64_t token = std::int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (token >= tokens.count) return;
  const std::int32_t* const row = tokens.row + token * tokens.choices;
  for (int c = threadIdx.x; c < chunks; c += blockDim.x) {
    const uint4 v = x[token * chunks + c];
    for (int k = 0; k < tokens.choices; ++k)
      if (const std::int64_t r = row[k]; r >= 0) rows[r * chunks + c] = v;
  }
}

constexpr int kInFlight = 8;    // rows that a thread has asked for before it adds the first

template <class T>
__global__ void __launch_bounds__(kBlock) gather_sum(T* __restrict__ y, const T* __restrict__ rows, Tokens tokens, int d) {
  const std::int64_t token = std::int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (token >= tokens.count) return;
  const std::int32_t* const row = tokens.row + token * tokens.choices;
  const int choices = int(tokens.choices);
  for (int at = threadIdx.x * kWidth; at < d; at += blockDim.x * kWidth) {
    float sum[kWidth] = {};
    for (int first = 0; first < choices; first += kInFlight) {
      float v[kInFlight][kWidth];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const std::int64_t r = first + u < choices ? row[first + u] : -1;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) v[u][i] = 0;    // + 0 changes nothing
        if (r >= 0) load(v[u], rows + r * d + at);
      }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u)
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sum[i] += v[u][i];
    }
    store(sum, y + token * d + at);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    gather_numbers(T* __restrict__ rows, const T* __restrict__ w, const std::int32_t* __restrict__ slot, std::int64_t num_rows) {
  const std::int64_t r = std::int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (r < num_rows) rows[r] = w[slot[r]];
}
template <class T>
__global__ void __launch_bounds__(kBlock)
    scatter_numbers(T* __restrict__ w, const T* __restrict__ rows, const std::int32_t* __restrict__ slot, std::int64_t num_rows) {
  const std::int64_t r = std::int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (r < num_rows) w[slot[r]] = rows[r];
}

gpuStream_t of(void* stream) { return static_cast<gpuStream_t>(stream); }

}    // namespace

const char* route_device(std::int32_t* slot, std::int32_t* expert, std::int64_t capacity, const std::int32_t* ids, std::int64_t n,
                         std::int32_t begin, std::int32_t end, void* stream) {
  if (capacity == 0) return nullptr;
  sort_by_expert<<<static_cast<unsigned>(end - begin + 1), kRouteThreads, 0, of(stream)>>>(slot, expert, capacity, ids, n, begin);
  return launch_error();
}

const char* rows_of_slots_device(std::int32_t* row, const std::int32_t* slot, std::int64_t rows, void* stream) {
  if (rows == 0) return nullptr;
  invert<<<num_blocks(rows, kBlock), kBlock, 0, of(stream)>>>(row, slot, rows);
  return launch_error();
}

const char* dispatch_device(void* rows, const void* x, const Tokens& tokens, std::int64_t row_bytes, void* stream) {
  const std::int64_t chunks = row_bytes / 16;
  if (tokens.count == 0 || chunks == 0) return nullptr;
  const dim3 block = block_for(chunks);
  scatter<<<num_blocks(tokens.count, block.y), block, 0, of(stream)>>>(static_cast<uint4*>(rows), static_cast<const uint4*>(x), tokens,
                                                                       static_cast<int>(chunks));
  return launch_error();
}

const char* combine_device(void* y, const void* rows, FloatType type, const Tokens& tokens, std::int64_t d, void* stream) {
  if (tokens.count == 0 || d == 0) return nullptr;
  const dim3 block = block_for(d / kWidth);
  const unsigned blocks = num_blocks(tokens.count, block.y);
  if (type == FloatType::fp32)
    gather_sum<<<blocks, block, 0, of(stream)>>>(static_cast<float*>(y), static_cast<const float*>(rows), tokens, static_cast<int>(d));
  else
    gather_sum<<<blocks, block, 0, of(stream)>>>(static_cast<std::uint16_t*>(y), static_cast<const std::uint16_t*>(rows), tokens,
                                                 static_cast<int>(d));
  return launch_error();
}

const char* dispatch_weights_device(void* rows, const void* w, const std::int32_t* slot, std::int64_t num_rows, std::int64_t bytes,
                                    void* stream) {
  if (num_rows == 0) return nullptr;
  const unsigned blocks = num_blocks(num_rows, kBlock);
  if (bytes == 4)
    gather_numbers<<<blocks, kBlock, 0, of(stream)>>>(static_cast<std::uint32_t*>(rows), static_cast<const std::uint32_t*>(w), slot,
                                                      num_rows);
  else
    gather_numbers<<<blocks, kBlock, 0, of(stream)>>>(static_cast<std::uint16_t*>(rows), static_cast<const std::uint16_t*>(w), slot,
                                                      num_rows);
  return launch_error();
}

const char* combine_weights_device(void* w, const void* rows, const std::int32_t* slot, std::int64_t num_rows, std::int64_t bytes,
                                   void* stream) {
  if (num_rows == 0) return nullptr;
  const unsigned blocks = num_blocks(num_rows, kBlock);
  if (bytes == 4)
    scatter_numbers<<<blocks, kBlock, 0, of(stream)>>>(static_cast<std::uint32_t*>(w), static_cast<const std::uint32_t*>(rows), slot,
                                                       num_rows);
  else
    scatter_numbers<<<blocks, kBlock, 0, of(stream)>>>(static_cast<std::uint16_t*>(w), static_cast<const std::uint16_t*>(rows), slot,
                                                       num_rows);
  return launch_error();
}

}    // namespace sheaf
