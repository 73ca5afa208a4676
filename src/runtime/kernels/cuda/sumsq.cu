#include "runtime/kernels/cuda/wide.h"
#include "runtime/kernels/sumsq.h"

namespace sheaf {
namespace {

// The sum over a block of kBlock threads, in thread 0: first within warps.
__device__ float sum_of_block(float x) {
  __shared__ float of_warp[kBlock / kWarp];
  x = sum_of_lanes(x);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = x;
  __syncthreads();
  float sum = 0;
  if (threadIdx.x == 0)
    for (const float w : of_warp) sum += w;
  return sum;
}

// `chunks` times kWidth elements, which begin on 16 bytes, by wide accesses; the rest of the n one by one.
template <class T>
__global__ void __launch_bounds__(kBlock)
    sum_parts(float* __restrict__ parts, const T* __restrict__ x, std::int64_t n, std::int64_t chunks) {
  const std::int64_t thread = std::int64_t(blockIdx.x) * kBlock + threadIdx.x, threads = std::int64_t(gridDim.x) * kBlock;
  float sum = 0;
#pragma unroll 4
  for (std::int64_t chunk = thread; chunk < chunks; chunk += threads) {
    float v[kWidth], of_chunk = 0;    // a sum of its own: a thread adds thousands of chunks
    load(v, x + chunk * kWidth);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) of_chunk += v[i] * v[i];
    sum += of_chunk;
  }
  for (std::int64_t i = chunks * kWidth + thread; i < n; i += threads) {
    const float v = load(x + i);
    sum += v * v;
  }
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kBlock) sum_all(float* __restrict__ out, const float* __restrict__ parts, int n) {
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += kBlock) sum += parts[i];
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) *out = sum;
}

template <class T>
void launch(float* out, float* parts, const T* x, std::int64_t n, gpuStream_t stream) {
  const std::int64_t chunks = reinterpret_cast<std::uintptr_t>(x) % 16 == 0 ? n / kWidth : 0;
  const std::int64_t wanted = num_blocks(chunks ? chunks : n, kBlock);
  const unsigned blocks = static_cast<unsigned>(wanted < 1 ? 1 : wanted < kSumsqParts ? wanted : kSumsqParts);
  sum_parts<<<blocks, kBlock, 0, stream>>>(parts, x, n, chunks);
  sum_all<<<1, kBlock, 0, stream>>>(out, parts, static_cast<int>(blocks));
}

}    // namespace

const char* sumsq_device(float* out, float* parts, const void* x, FloatType type, std::int64_t n, void* stream) {
  const auto s = stream_of(stream);
  if (type == FloatType::fp32)
    launch(out, parts, static_cast<const float*>(x), n, s);
  else
    launch(out, parts, static_cast<const std::uint16_t*>(x), n, s);
  return launch_error();
}

}    // namespace sheaf
