#include "runtime/kernels/embedding_grad.h"
#include "runtime/kernels/gpu.h"

namespace sheaf {
namespace {

constexpr int kThreads = 128;
constexpr int kUnroll = 8;    // loads in flight: a frequent token is one long sum by one thread per column

struct Bf16 {
  std::uint16_t bits;
};
__device__ float wide(float x) { return x; }
__device__ float wide(Bf16 x) { return __uint_as_float(std::uint32_t(x.bits) << 16); }
__device__ float wide(__half x) { return __half2float(x); }

// Block (x, y): the run of equal ids that begins at place x, if one does, and kThreads columns.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_runs(float* __restrict__ out, const T* __restrict__ dy, const std::int64_t* __restrict__ sorted_ids,
             const std::int64_t* __restrict__ order, EmbeddingGradShape s) {
  const std::int64_t first = blockIdx.x, id = sorted_ids[first];
  if (first > 0 && sorted_ids[first - 1] == id) return;
  if (id == s.padding_id || id < s.begin || id >= s.begin + s.rows) return;
  const std::int64_t column = std::int64_t(blockIdx.y) * kThreads + threadIdx.x;
  if (column >= s.k) return;
  float sum = 0;
  for (std::int64_t place = first; place < s.tokens && sorted_ids[place] == id; place += kUnroll) {
    float x[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t p = place + u;
      x[u] = p < s.tokens && sorted_ids[p] == id ? wide(dy[order[p] * s.k + column]) : 0;    // beyond the run: + 0 changes nothing
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) sum += x[u];
  }
  out[(id - s.begin) * s.k + column] = sum;
}

}    // namespace

const char* embedding_grad_device(float* out, const void* dy, DyType type, const std::int64_t* sorted_ids, const std::int64_t* order,
                                  const EmbeddingGradShape& shape, void* stream) {
  if (shape.tokens == 0 || shape.k == 0) return nullptr;
  const dim3 blocks(static_cast<unsigned>(shape.tokens), static_cast<unsigned>((shape.k + kThreads - 1) / kThreads));
  const auto s = stream_of(stream);
  switch (type) {
    case DyType::fp32:
      sum_runs<<<blocks, kThreads, 0, s>>>(out, static_cast<const float*>(dy), sorted_ids, order, shape);
      break;
    case DyType::bf16:
      sum_runs<<<blocks, kThreads, 0, s>>>(out, static_cast<const Bf16*>(dy), sorted_ids, order, shape);
      break;
    case DyType::fp16:
      sum_runs<<<blocks, kThreads, 0, s>>>(out, static_cast<const __half*>(dy), sorted_ids, order, shape);
      break;
  }
  return launch_error();
}

}    // namespace sheaf
