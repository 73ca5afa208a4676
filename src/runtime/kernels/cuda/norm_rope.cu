// Memory-bound kernels: 16-byte accesses, each element read once where it fits in registers, sums in a fixed order.
#include "runtime/kernels/cuda/wide.h"
#include "runtime/kernels/norm_rope.h"

namespace sheaf {
namespace {

constexpr int kMaxChunks = 4;    // a thread holds at most 32 elements of a row; kernels are compiled for 1 chunk and for 4
constexpr int kMaxThreads = 256;

__device__ float rounded(float x, float*) { return x; }
__device__ float rounded(float x, std::uint16_t*) { return from_bits(to_bits(x)); }

// Sum over the `width` threads (a power of two) that share a row; every one of them gets it. All threads of the block call it. `shared`
// holds one float per warp.
__device__ float row_sum(float x, int width, float* shared) {
  for (int offset = min(width, kWarp) / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  if (width <= kWarp) return x;
  const int warp = threadIdx.x / kWarp, warps = width / kWarp, first = warp / warps * warps;
  __syncthreads();    // the sum before this one has been read
  if (threadIdx.x % kWarp == 0) shared[warp] = x;
  __syncthreads();
  float total = 0;
  for (int i = 0; i < warps; ++i) total += shared[first + i];
  return total;
}

// `width` threads a row; blockDim.x / width rows a block at a time.
template <int kChunks, class T>
__global__ void __launch_bounds__(kMaxThreads)
    norm(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w, std::int64_t tokens, int d, float eps, int width) {
  __shared__ float shared[kMaxThreads / kWarp];
  const int lane = threadIdx.x % width, rows = blockDim.x / width;
  const std::int64_t row = std::int64_t(blockIdx.x) * rows + threadIdx.x / width;
  const bool live = row < tokens;
  float v[kChunks][kWidth], square = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int at = (c * width + lane) * kWidth;
    if (live && at < d) {
      load(v[c], x + row * d + at);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) square += v[c][i] * v[c][i];
    }
  }
  const float r = rsqrtf(row_sum(square, width, shared) / d + eps);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int at = (c * width + lane) * kWidth;
    if (!live || at >= d) continue;
    float scale[kWidth];
    load(scale, w + at);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) v[c][i] = rounded(v[c][i] * r, static_cast<T*>(nullptr)) * scale[i];
    store(v[c], y + row * d + at);
  }
}

constexpr int kRunsOfTokens =
    528;    // 4 blocks for each of 132 multiprocessors: fixed, so that sums have one order on any of these devices

// Block b goes through the rows b rows, (b + gridDim) rows, ...; dw of its rows is summed in registers, then over the row groups of the
// block.
template <int kChunks, class T>
__global__ void __launch_bounds__(kMaxThreads)
    norm_grad(T* __restrict__ dx, float* __restrict__ dw_parts, const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ dy,
              std::int64_t tokens, int d, float eps, int width) {
  __shared__ float shared[kMaxThreads / kWarp];
  extern __shared__ float sums[];    // [rows, d]
  const int lane = threadIdx.x % width, group = threadIdx.x / width, rows = blockDim.x / width;
  float scale[kChunks][kWidth], dw[kChunks][kWidth] = {};
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    if (const int at = (c * width + lane) * kWidth; at < d) load(scale[c], w + at);
  for (std::int64_t first = std::int64_t(blockIdx.x) * rows; first < tokens; first += std::int64_t(gridDim.x) * rows) {
    const std::int64_t row = first + group;
    const bool live = row < tokens;
    float v[kChunks][kWidth], g[kChunks][kWidth], square = 0, product = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int at = (c * width + lane) * kWidth;
      if (!live || at >= d) continue;
      load(v[c], x + row * d + at);
      load(g[c], dy + row * d + at);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) square += v[c][i] * v[c][i], product += g[c][i] * scale[c][i] * v[c][i];
    }
    const float r = rsqrtf(row_sum(square, width, shared) / d + eps);
    const float s = row_sum(product, width, shared) / d * r * r * r;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int at = (c * width + lane) * kWidth;
      if (!live || at >= d) continue;
      float out[kWidth];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        dw[c][i] += g[c][i] * v[c][i] * r;
        out[i] = g[c][i] * scale[c][i] * r - v[c][i] * s;
      }
      store(out, dx + row * d + at);
    }
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c)
    if (const int at = (c * width + lane) * kWidth; at < d)
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sums[group * d + at + i] = dw[c][i];
  __syncthreads();
  for (int i = threadIdx.x; i < d; i += blockDim.x) {
    float total = 0;
    for (int k = 0; k < rows; ++k) total += sums[k * d + i];
    dw_parts[std::int64_t(blockIdx.x) * d + i] = total;
  }
}

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

// Threads per row: a power of two that gives each at most kMaxChunks chunks, at least one.
int row_threads(std::int64_t d) {
  int width = 1;
  while (width < kMaxThreads && width * kWidth < d) width *= 2;
  return width;
}

// Rows of a block of the gradient: as many as its shared sums leave room for.
int grad_threads(std::int64_t d) {
  const int width = row_threads(d);
  int threads = kMaxThreads;
  while (threads > width && threads / width * d * std::int64_t(sizeof(float)) > 40 * 1024) threads /= 2;
  return threads;
}

}    // namespace

template <class T>
static void launch_norm(void* y, const void* x, const void* w, std::int64_t tokens, std::int64_t d, float eps, gpuStream_t stream) {
  const int width = row_threads(d), rows = kMaxThreads / width;
  const auto blocks = static_cast<unsigned>((tokens + rows - 1) / rows);
  const auto run = width * kWidth >= d ? norm<1, T> : norm<kMaxChunks, T>;
  run<<<blocks, kMaxThreads, 0, stream>>>(static_cast<T*>(y), static_cast<const T*>(x), static_cast<const T*>(w), tokens,
                                          static_cast<int>(d), eps, width);
}

const char* rms_norm_device(void* y, const void* x, const void* w, FloatType type, std::int64_t tokens, std::int64_t d, float eps,
                            void* stream) {
  const auto s = static_cast<gpuStream_t>(stream);
  type == FloatType::fp32 ? launch_norm<float>(y, x, w, tokens, d, eps, s) : launch_norm<std::uint16_t>(y, x, w, tokens, d, eps, s);
  return launch_error();
}

std::int64_t rms_norm_parts(std::int64_t tokens) { return tokens < kRunsOfTokens ? tokens : kRunsOfTokens; }

template <class T>
static void launch_norm_grad(void* dx, float* dw_parts, const void* x, const void* w, const void* dy, std::int64_t tokens, std::int64_t d,
                             float eps, gpuStream_t stream) {
  const int width = row_threads(d), threads = grad_threads(d);
  const std::size_t shared = static_cast<std::size_t>(threads / width) * static_cast<std::size_t>(d) * sizeof(float);
  const auto blocks = static_cast<unsigned>(rms_norm_parts(tokens));
  const auto run = width * kWidth >= d ? norm_grad<1, T> : norm_grad<kMaxChunks, T>;
  run<<<blocks, threads, shared, stream>>>(static_cast<T*>(dx), dw_parts, static_cast<const T*>(x), static_cast<const T*>(w),
                                           static_cast<const T*>(dy), tokens, static_cast<int>(d), eps, width);
}

const char* rms_norm_grad_device(void* dx, float* dw_parts, const void* x, const void* w, const void* dy, FloatType type,
                                 std::int64_t tokens, std::int64_t d, float eps, void* stream) {
  const auto s = static_cast<gpuStream_t>(stream);
  type == FloatType::fp32 ? launch_norm_grad<float>(dx, dw_parts, x, w, dy, tokens, d, eps, s)
                          : launch_norm_grad<std::uint16_t>(dx, dw_parts, x, w, dy, tokens, d, eps, s);
  return launch_error();
}

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
