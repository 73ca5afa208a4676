#include "runtime/kernels/cuda/wide.h"
#include "runtime/kernels/norm_rope.h"

namespace sheaf {
namespace {

constexpr int kMaxThreads = 256;

// A thread rotates kWidth neighbouring pairs of one head.
template <class T>
__global__ void __launch_bounds__(kMaxThreads)
    turn(T* __restrict__ y, const T* __restrict__ x, const float* __restrict__ cos, const float* __restrict__ sin, std::int64_t count,
         int heads, int d, int j, float sign) {
  const int pieces = j / kWidth + (d - 2 * j) / kWidth;    // pairs, then channels that pass
  const std::int64_t thread = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= count * pieces) return;
  const std::int64_t head = thread / pieces, token = head / heads;
  const int piece = static_cast<int>(thread % pieces), at = piece * kWidth;
  float a[kWidth], b[kWidth], c[kWidth], s[kWidth];
  if (at >= j) {
    const std::int64_t from = head * d + at + j;
    load(a, x + from);
    store(a, y + from);
    return;
  }
  load(a, x + head * d + at);
  load(b, x + head * d + j + at);
  load(c, cos + token * j + at);
  load(s, sin + token * j + at);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const float u = a[i], v = b[i], t = sign * s[i];
    a[i] = u * c[i] - v * t;
    b[i] = v * c[i] + u * t;
  }
  store(a, y + head * d + at);
  store(b, y + head * d + j + at);
}

}    // namespace

const char* rotate_device(void* y, const void* x, const float* cos, const float* sin, FloatType type, std::int64_t tokens,
                          std::int64_t heads, std::int64_t d, std::int64_t j, bool inverse, void* stream) {
  const std::int64_t threads = tokens * heads * (j / kWidth + (d - 2 * j) / kWidth);
  const auto blocks = static_cast<unsigned>((threads + kMaxThreads - 1) / kMaxThreads);
  const auto s = static_cast<gpuStream_t>(stream);
  const float sign = inverse ? -1.0f : 1.0f;
  if (type == FloatType::fp32)
    turn<<<blocks, kMaxThreads, 0, s>>>(static_cast<float*>(y), static_cast<const float*>(x), cos, sin, tokens * heads,
                                        static_cast<int>(heads), static_cast<int>(d), static_cast<int>(j), sign);
  else
    turn<<<blocks, kMaxThreads, 0, s>>>(static_cast<std::uint16_t*>(y), static_cast<const std::uint16_t*>(x), cos, sin, tokens * heads,
                                        static_cast<int>(heads), static_cast<int>(d), static_cast<int>(j), sign);
  return launch_error();
}

}    // namespace sheaf
