// A counting sort: the ids are cut into pieces, a block counts each, and then, knowing all counts, places it. Atomics on integers only.
#include "runtime/kernels/cuda/wide.h"
#include "runtime/kernels/route.h"

namespace sheaf {
namespace {

constexpr int kThreads = kWarp * kWarp;    // so that a warp can sum what the warps have
constexpr int kMost = static_cast<int>(kMostExpertsToSort);
constexpr std::int64_t kMostPieces = 128;
constexpr unsigned kAll = 0xffffffffu;

// Of a piece: a multiple of what a block looks at together.
std::int64_t piece_length(std::int64_t ids) {
  const std::int64_t turns = (ids + kMostPieces * kThreads - 1) / (kMostPieces * kThreads);
  return (turns > 0 ? turns : 1) * kThreads;
}

// Counted from `begin`; -1: not among [begin, end).
__device__ int expert_of(const ExpertIds& all, std::int64_t i) {
  const std::int32_t id = all.place ? all.place[all.ids[i]] : all.ids[i];
  return id >= all.begin && id < all.end ? id - all.begin : -1;
}

__global__ void __launch_bounds__(kThreads) count_piece(std::int32_t* __restrict__ counts, ExpertIds all, std::int64_t length) {
  __shared__ int count[kMost];
  const int thread = threadIdx.x, experts = all.end - all.begin;
  if (thread < experts) count[thread] = 0;
  __syncthreads();
  const std::int64_t begin = blockIdx.x * length, end = begin + length < all.n ? begin + length : all.n;
  for (std::int64_t i = begin + thread; i < end; i += kThreads)
    if (const int e = expert_of(all, i); e >= 0) atomicAdd(&count[e], 1);
  __syncthreads();
  if (thread < experts) counts[std::int64_t(blockIdx.x) * experts + thread] = count[thread];
}

// total: of all pieces; before: of those in front of `piece`. All threads of the block call it.
__device__ void add_pieces(int (&total)[kMost], int (&before)[kMost], const std::int32_t* __restrict__ counts, int pieces, int experts,
                           int piece) {
  const int thread = threadIdx.x;
  if (thread < experts) total[thread] = before[thread] = 0;
  __syncthreads();
#pragma unroll 4
  for (int i = thread; i < pieces * experts; i += kThreads) {
    const int count = counts[i], e = i % experts;
    atomicAdd(&total[e], count);
    if (i < piece * experts) atomicAdd(&before[e], count);
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads)
    write_totals(float* __restrict__ out, const std::int32_t* __restrict__ counts, int pieces, int experts) {
  __shared__ int total[kMost], before[kMost];
  add_pieces(total, before, counts, pieces, experts, 0);
  if (const int thread = threadIdx.x; thread < experts) out[thread] = static_cast<float>(total[thread]);
}

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

// Sum over the threads before this one; total: over all of them. All threads of the block call it.
__device__ int sum_before(int x, int& total) {
  __shared__ int shared[kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, here = sum_up_to(x);
  if (lane == kWarp - 1) shared[warp] = here;
  __syncthreads();
  const int warps = sum_up_to(shared[lane]), lower = __shfl_sync(kAll, warps, warp == 0 ? 0 : warp - 1, kWarp);
  total = __shfl_sync(kAll, warps, kWarp - 1, kWarp);
  return (warp == 0 ? 0 : lower) + here - x;
}

__global__ void __launch_bounds__(kThreads)
    place_piece(std::int32_t* __restrict__ slot, std::int32_t* __restrict__ expert, std::int64_t capacity,
                const std::int32_t* __restrict__ counts, ExpertIds all, std::int64_t length) {
  __shared__ int total[kMost], next[kMost];          // next: the row of an expert's next id
  __shared__ std::uint16_t of_warp[kWarp][kMost];    // a warp's ids of an expert, then those of the warps before it
  const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp, experts = all.end - all.begin;
  add_pieces(total, next, counts, gridDim.x, experts, blockIdx.x);
  int rows = 0;
  const int first = sum_before(thread < experts ? total[thread] : 0, rows);
  if (thread < experts) next[thread] += first;
  for (std::int64_t r = rows + std::int64_t(blockIdx.x) * kThreads + thread; r < capacity; r += std::int64_t(gridDim.x) * kThreads)
    slot[r] = -1, expert[r] = INT32_MAX;

  const std::int64_t begin = blockIdx.x * length, end = begin + length < all.n ? begin + length : all.n;
  for (std::int64_t turn = begin; turn < end; turn += kThreads) {
    const std::int64_t i = turn + thread;
    const int e = i < end ? expert_of(all, i) : -1;
    for (int j = lane; j < experts; j += kWarp) of_warp[warp][j] = 0;
    int same = 0, lower = 0;    // ids of this expert in the warp, in lower lanes
#pragma unroll
    for (int l = 0; l < kWarp; ++l) {
      const bool hit = __shfl_sync(kAll, e, l, kWarp) == e;
      same += hit, lower += hit && l < lane;
    }
    __syncthreads();
    if (e >= 0 && lower == 0) of_warp[warp][e] = static_cast<std::uint16_t>(same);
    __syncthreads();
    int found = 0;
    if (thread < experts)
#pragma unroll 8
      for (int w = 0; w < kWarp; ++w) {
        const int here = of_warp[w][thread];
        of_warp[w][thread] = static_cast<std::uint16_t>(found);
        found += here;
      }
    __syncthreads();
    if (e >= 0)
      if (const std::int64_t r = next[e] + of_warp[warp][e] + lower; r < capacity) slot[r] = std::int32_t(i), expert[r] = all.begin + e;
    __syncthreads();
    if (thread < experts) next[thread] += found;
  }
}

void count_pieces(std::int32_t* counts, const ExpertIds& ids, gpuStream_t stream) {
  count_piece<<<static_cast<unsigned>(num_pieces(ids.n)), kThreads, 0, stream>>>(counts, ids, piece_length(ids.n));
}

}    // namespace

std::int64_t num_pieces(std::int64_t ids) { return ids == 0 ? 1 : num_blocks(ids, piece_length(ids)); }

const char* count_experts_device(float* out, std::int32_t* counts, const ExpertIds& ids, void* stream) {
  count_pieces(counts, ids, stream_of(stream));
  write_totals<<<1, kThreads, 0, stream_of(stream)>>>(out, counts, static_cast<int>(num_pieces(ids.n)), ids.end - ids.begin);
  return launch_error();
}

const char* route_device(std::int32_t* slot, std::int32_t* expert, std::int64_t capacity, std::int32_t* counts, const ExpertIds& ids,
                         void* stream) {
  if (capacity == 0) return nullptr;
  count_pieces(counts, ids, stream_of(stream));
  place_piece<<<static_cast<unsigned>(num_pieces(ids.n)), kThreads, 0, stream_of(stream)>>>(slot, expert, capacity, counts, ids,
                                                                                            piece_length(ids.n));
  return launch_error();
}

}    // namespace sheaf
