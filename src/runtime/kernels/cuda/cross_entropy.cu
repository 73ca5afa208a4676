#include <cfloat>

#include "runtime/kernels/cross_entropy.h"
#include "runtime/kernels/cuda/packed.h"

namespace sheaf {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;    // accesses of a thread that are asked for before the first is computed with

// For 16 bits the hardware's exponential does: its error of |x| 2^-24 vanishes in their rounding.
template <class T>
__device__ float exponential(float x) {
  return sizeof(T) == 2 ? fast_exp(x) : expf(x);
}

__device__ std::int64_t label_of(const Labels& labels, std::int64_t row) {
  return labels.is_i64 ? static_cast<const std::int64_t*>(labels.ids)[row] : static_cast<const std::int32_t*>(labels.ids)[row];
}

// Columns before the first that lies on 16 bytes, at most v.
template <class T>
__device__ int columns_before_16(const T* row, int v) {
  const auto past = static_cast<int>(reinterpret_cast<std::uintptr_t>(row) % 16 / sizeof(T));
  return past == 0 ? 0 : min(v, kPacked<T> - past);
}

enum class Want { both, max, sum };

// The online softmax of some of a row: largest, and sum of exp(x - largest); -inf and 0 of nothing. With Want::max the sum counts NaNs,
// with Want::sum the largest is given.
struct Sums {
  float m, s;
};
// What is subtracted for range: where all is -inf so far, -inf - -inf would make a NaN.
__device__ float offset(float m) { return fmaxf(m, -FLT_MAX); }

template <class T, Want want, int n>
__device__ void add(Sums& sums, const float (&x)[n]) {
  if constexpr (want == Want::max) {
#pragma unroll
    for (int i = 0; i < n; ++i) sums.m = fmaxf(sums.m, x[i]), sums.s += x[i] != x[i];
    return;
  }
  float m = sums.m;
  if constexpr (want == Want::both) {
#pragma unroll
    for (int i = 0; i < n; ++i) m = fmaxf(m, x[i]);
    sums.s *= exponential<T>(offset(sums.m) - offset(m));
    sums.m = m;
  }
  const float from = want == Want::both ? offset(m) : m;
  float s = 0;
#pragma unroll
  for (int i = 0; i < n; ++i) s += exponential<T>(x[i] - from);
  sums.s += s;
}
template <class T, Want want>
__device__ Sums join(const Sums& a, const Sums& b) {
  if constexpr (want != Want::both) return {fmaxf(a.m, b.m), a.s + b.s};
  const float m = fmaxf(a.m, b.m), from = offset(m);
  return {m, a.s * exponential<T>(offset(a.m) - from) + b.s * exponential<T>(offset(b.m) - from)};
}

// A block a row. Of m, s and p those are written that are not null; m is read if it is given.
template <class T, Want want>
__global__ void __launch_bounds__(kThreads)
    row_sums(float* m, float* __restrict__ s, float* __restrict__ p, const T* __restrict__ x, Labels labels, int v) {
  constexpr int n = kPacked<T>;
  const std::int64_t row = blockIdx.x;    // columns are counted by int: v < 2^31
  x += row * v;
  Sums sums{want == Want::sum ? m[row] : -INFINITY, 0};
  const int head = columns_before_16(x, v), accesses = (v - head) / n, tail = head + accesses * n;
  const auto add_one = [&](int column) {
    const float one[1] = {to_float(x[column])};
    add<T, want>(sums, one);
  };
  if (threadIdx.x < head) add_one(threadIdx.x);
  if (tail + threadIdx.x < v) add_one(tail + threadIdx.x);
  const T* first = x + head;
  int at = threadIdx.x;
  for (; at + (kUnroll - 1) * kThreads < accesses; at += kUnroll * kThreads) {
    uint4 packed[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) packed[u] = load_packed(first + (at + u * kThreads) * n);
    float all[kUnroll * n];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      float some[n];
      unpack<T>(some, packed[u]);
#pragma unroll
      for (int i = 0; i < n; ++i) all[u * n + i] = some[i];
    }
    add<T, want>(sums, all);
  }
  for (; at < accesses; at += kThreads) {
    float some[n];
    unpack<T>(some, load_packed(first + at * n));
    add<T, want>(sums, some);
  }

  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2)
    sums = join<T, want>(sums, {__shfl_xor_sync(0xffffffffu, sums.m, lanes), __shfl_xor_sync(0xffffffffu, sums.s, lanes)});
  __shared__ Sums of_warps[kThreads / kWarp];
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = sums;
  __syncthreads();
  if (threadIdx.x > 0) return;
  sums = of_warps[0];
  for (int warp = 1; warp < kThreads / kWarp; ++warp) sums = join<T, want>(sums, of_warps[warp]);
  if constexpr (want == Want::max) sums.m = sums.s > 0 ? NAN : sums.m;
  if constexpr (want != Want::sum) m[row] = sums.m;
  if constexpr (want != Want::max) s[row] = sums.s;
  if constexpr (want == Want::both) {
    const std::int64_t label = label_of(labels, row);
    p[row] = 0 <= label && label < v ? to_float(x[label]) : 0;
  }
}

// A block takes kThreads kUnroll accesses of one row; the first and last block of a row also take its ends that fill none. An element is
// read and written by one thread: y may be x.
template <class T>
__global__ void __launch_bounds__(kThreads) logits_grad(T* y, const T* x, const float* __restrict__ m, const float* __restrict__ ds,
                                                        const float* __restrict__ dp, Labels labels, int v, unsigned blocks) {
  constexpr int n = kPacked<T>;
  const std::int64_t row = blockIdx.x / blocks;
  const int piece = static_cast<int>(blockIdx.x % blocks);
  x += row * v, y += row * v;
  const float largest = m[row], scale = ds[row];
  const std::int64_t label = label_of(labels, row), local = label - labels.begin;
  const bool owned = label >= 0 && 0 <= local && local < v;
  const int own = owned ? static_cast<int>(local) : -1;    // column of the label
  const float at_label = owned ? dp[row] : 0;
  const auto grad = [&](float value, int column) {
    const float g = scale * exponential<T>(value - largest);
    return column == own ? g + at_label : g;
  };
  const bool alike = (reinterpret_cast<std::uintptr_t>(x) - reinterpret_cast<std::uintptr_t>(y)) % 16 == 0;
  const int head = alike ? columns_before_16(x, v) : v, accesses = (v - head) / n, tail = head + accesses * n;
  if (piece == 0)
    for (int c = threadIdx.x; c < head; c += kThreads) assign(y[c], grad(to_float(x[c]), c));
  if (const int c = tail + threadIdx.x; piece == blocks - 1 && c < v) assign(y[c], grad(to_float(x[c]), c));
  const int first = piece * kThreads * kUnroll + threadIdx.x;
  uint4 packed[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u)
    if (const int at = first + u * kThreads; at < accesses) packed[u] = load_packed(x + head + at * n);
#pragma unroll
  for (int u = 0; u < kUnroll; ++u)
    if (const int at = first + u * kThreads; at < accesses) {
      float some[n];
      unpack<T>(some, packed[u]);
#pragma unroll
      for (int i = 0; i < n; ++i) some[i] = grad(some[i], head + at * n + i);
      store_packed(pack<T>(some), y + head + at * n);
    }
}

template <class T, Want want>
const char* launch_sums(float* m, float* s, float* p, const void* x, const Labels& labels, std::int64_t rows, std::int64_t v,
                        void* stream) {
  if (rows == 0) return nullptr;
  row_sums<T, want>
      <<<static_cast<unsigned>(rows), kThreads, 0, stream_of(stream)>>>(m, s, p, static_cast<const T*>(x), labels, static_cast<int>(v));
  return launch_error();
}

template <class T>
const char* launch_grad(void* y, const void* x, const float* m, const float* ds, const float* dp, const Labels& labels, std::int64_t rows,
                        std::int64_t v, void* stream) {
  if (rows == 0 || v == 0) return nullptr;
  const unsigned blocks = num_blocks(v, kThreads * kUnroll * kPacked<T>);
  logits_grad<<<static_cast<unsigned>(rows) * blocks, kThreads, 0, stream_of(stream)>>>(static_cast<T*>(y), static_cast<const T*>(x), m, ds,
                                                                                        dp, labels, static_cast<int>(v), blocks);
  return launch_error();
}

}    // namespace

const char* softmax_sums_device(float* m, float* s, float* p, const void* x, FloatType type, const Labels& labels, std::int64_t rows,
                                std::int64_t v, void* stream) {
  switch (type) {
    case FloatType::fp32:
      return launch_sums<float, Want::both>(m, s, p, x, labels, rows, v, stream);
    case FloatType::bf16:
      return launch_sums<std::uint16_t, Want::both>(m, s, p, x, labels, rows, v, stream);
    case FloatType::fp16:
      return launch_sums<__half, Want::both>(m, s, p, x, labels, rows, v, stream);
  }
  return "no such type";
}

const char* row_max_device(float* m, const float* x, std::int64_t rows, std::int64_t v, void* stream) {
  return launch_sums<float, Want::max>(m, nullptr, nullptr, x, {}, rows, v, stream);
}

const char* sum_exp_device(float* s, const float* x, const float* m, std::int64_t rows, std::int64_t v, void* stream) {
  return launch_sums<float, Want::sum>(const_cast<float*>(m), s, nullptr, x, {}, rows, v, stream);    // m is not written then
}

const char* logits_grad_device(void* y, const void* x, FloatType type, const float* m, const float* ds, const float* dp,
                               const Labels& labels, std::int64_t rows, std::int64_t v, void* stream) {
  switch (type) {
    case FloatType::fp32:
      return launch_grad<float>(y, x, m, ds, dp, labels, rows, v, stream);
    case FloatType::bf16:
      return launch_grad<std::uint16_t>(y, x, m, ds, dp, labels, rows, v, stream);
    case FloatType::fp16:
      return launch_grad<__half>(y, x, m, ds, dp, labels, rows, v, stream);
  }
  return "no such type";
}

}    // namespace sheaf
