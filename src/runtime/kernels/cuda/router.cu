#include <type_traits>

#include "runtime/kernels/cuda/wide.h"
#include "runtime/kernels/router.h"

namespace sheaf {
namespace {

// Where a warp has a row: number i of a lane is number lane + kWarp i of the row.
constexpr int kWarps = kBlock / kWarp;    // rows of a block

// Scores as integers in the order of sorting: both zeros are equal, NaN is above all. 0 is below any: nobody there.
__device__ std::uint32_t key_of(float x) {
  const std::uint32_t bits = __float_as_uint(x + 0.0f);
  return x != x ? UINT32_MAX : bits >> 31 ? ~bits : bits | 1u << 31;
}
__device__ float score_of(std::uint32_t key) { return __uint_as_float(key >> 31 ? key ^ 1u << 31 : ~key); }
constexpr std::uint32_t kLeast = 0x007fffff;    // of -infinity

struct Best {
  int expert;
  std::uint32_t key;    // 0: nobody is left
};
// The best one, the first of equals, is taken out: its key becomes 0.
template <int N>
__device__ Best take_best(std::uint32_t (&key)[N]) {
  const int lane = threadIdx.x % kWarp;
  std::uint32_t best = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) best = key[i] > best ? key[i] : best;
  best = warp_max(best);
  std::uint32_t last = 0;    // experts counted from behind, so that the first one is the largest
#pragma unroll
  for (int i = N - 1; i >= 0; --i) last = key[i] == best ? ~std::uint32_t(lane + kWarp * i) : last;
  const int expert = static_cast<int>(~warp_max(last));
#pragma unroll
  for (int i = 0; i < N; ++i) key[i] = expert == lane + kWarp * i ? 0 : key[i];
  return {expert, best};
}

// Puts the experts of all but the best groups below any other. A group is worth the sum of its best.
template <int N>
__device__ void keep_best_groups(std::uint32_t (&key)[N], const ChoiceRule& c) {
  const int lane = threadIdx.x % kWarp, size = c.experts / c.groups;
  const auto is_in = [&](int i, int group) { return static_cast<unsigned>(lane + kWarp * i - group * size) < static_cast<unsigned>(size); };
  std::uint32_t worth[1] = {};    // of the group of the lane's number
  for (int group = 0; group < c.groups; ++group) {
    std::uint32_t of_group[N];
#pragma unroll
    for (int i = 0; i < N; ++i) of_group[i] = is_in(i, group) ? key[i] : 0;
    float sum = 0;
    for (int t = 0; t < c.group_top; ++t)
      if (const std::uint32_t best = take_best(of_group).key) sum += score_of(best);
    if (lane == group) worth[0] = key_of(sum);
  }
  bool keep[N] = {};
  for (int g = 0; g < c.kept_groups && g < c.groups; ++g) {
    const int group = take_best(worth).expert;
#pragma unroll
    for (int i = 0; i < N; ++i) keep[i] = keep[i] || is_in(i, group);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) key[i] = keep[i] || key[i] == 0 ? key[i] : kLeast;
}

template <int N, class T>
__global__ void __launch_bounds__(kBlock) choose(std::int32_t* __restrict__ chosen, const T* __restrict__ scores,
                                                 const float* __restrict__ bias, std::int64_t tokens, ChoiceRule c) {
  const int lane = threadIdx.x % kWarp;
  const std::int64_t token = std::int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (token >= tokens) return;
  std::uint32_t key[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int e = lane + kWarp * i;
    key[i] = e < c.experts ? key_of(load(scores + token * c.experts + e) + (bias ? bias[e] : 0)) : 0;
  }
  if (c.groups > 0) keep_best_groups(key, c);
  for (int j = 0; j < c.k; ++j) {
    const int expert = take_best(key).expert;
    if (lane == 0) chosen[token * c.k + j] = expert;
  }
}

__device__ float max_of_warp(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

template <int N, class T>
__global__ void __launch_bounds__(kBlock) softmax_of_rows(T* __restrict__ y, const T* __restrict__ x, std::int64_t rows, int d) {
  const int lane = threadIdx.x % kWarp;
  const std::int64_t row = std::int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  float v[N], most = -INFINITY, sum = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int at = lane + kWarp * i;
    v[i] = at < d ? load(x + row * d + at) : -INFINITY;
    most = fmaxf(most, v[i]);
  }
  most = max_of_warp(most);
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = expf(v[i] - most), sum += v[i];
  const float factor = 1 / sum_of_lanes(sum);
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (const int at = lane + kWarp * i; at < d) store(v[i] * factor, y + row * d + at);
}

template <int N, class T>
__global__ void __launch_bounds__(kBlock)
    softmax_grad_of_rows(T* __restrict__ dx, const T* __restrict__ y, const T* __restrict__ dy, std::int64_t rows, int d) {
  const int lane = threadIdx.x % kWarp;
  const std::int64_t row = std::int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;
  float p[N], g[N], dot = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int at = lane + kWarp * i;
    p[i] = at < d ? load(y + row * d + at) : 0;
    g[i] = at < d ? load(dy + row * d + at) : 0;
    dot += p[i] * g[i];
  }
  dot = sum_of_lanes(dot);
#pragma unroll
  for (int i = 0; i < N; ++i)
    if (const int at = lane + kWarp * i; at < d) store(p[i] * (g[i] - dot), dx + row * d + at);
}

template <class T>
__global__ void __launch_bounds__(kBlock) normalize_few(T* __restrict__ y, const T* __restrict__ x, FewNumbers n) {
  const std::int64_t row = std::int64_t(blockIdx.x) * kBlock + threadIdx.x, first = row * n.d;
  if (row >= n.rows) return;
  float sum = 0;
#pragma unroll 8
  for (int i = 0; i < n.d; ++i) sum += load(x + first + i);
  sum = fmaxf(sum + n.eps, n.floor);
#pragma unroll 8
  for (int i = 0; i < n.d; ++i) store(load(x + first + i) / sum, y + first + i);
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    normalize_few_grad(T* __restrict__ dx, const T* __restrict__ x, const T* __restrict__ dy, FewNumbers n) {
  const std::int64_t row = std::int64_t(blockIdx.x) * kBlock + threadIdx.x, first = row * n.d;
  if (row >= n.rows) return;
  float sum = 0, dot = 0;
#pragma unroll 8
  for (int i = 0; i < n.d; ++i) {
    const float v = load(x + first + i);
    sum += v, dot += load(dy + first + i) * v;
  }
  sum += n.eps;
  const float t = fmaxf(sum, n.floor), through = sum < n.floor ? 0 : dot / (t * t);
#pragma unroll 8
  for (int i = 0; i < n.d; ++i) store(load(dy + first + i) / t - through, dx + first + i);
}

// Of a block x goes along a row of the result, y through rows.
template <class T>
__global__ void __launch_bounds__(kBlock) take_numbers(T* __restrict__ y, const T* __restrict__ x, TakenIds taken) {
  const std::int64_t row = std::int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= taken.rows) return;
  for (int j = threadIdx.x; j < taken.k; j += blockDim.x) y[row * taken.k + j] = x[row * taken.d + taken.ids[row * taken.k + j]];
}

template <class T>
__global__ void __launch_bounds__(kBlock) put_numbers(T* __restrict__ dx, const T* __restrict__ dy, TakenIds taken) {
  const std::int64_t row = std::int64_t(blockIdx.x) * blockDim.y + threadIdx.y, first = row * taken.k;
  if (row >= taken.rows) return;
  for (int e = threadIdx.x; e < taken.d; e += blockDim.x) {
    float sum = 0;
#pragma unroll 8
    for (int j = 0; j < taken.k; ++j)
      if (taken.ids[first + j] == e) sum += load(dy + first + j);
    store(sum, dx + row * taken.d + e);
  }
}

// Calls f(numbers of a lane, as a constant).
template <class F>
void by_numbers_of_a_lane(std::int64_t d, const F& f) {
  if (d <= kWarp) return f(std::integral_constant<int, 1>{});
  if (d <= kWarp * 2) return f(std::integral_constant<int, 2>{});
  if (d <= kWarp * 4) return f(std::integral_constant<int, 4>{});
  if (d <= kWarp * 8) return f(std::integral_constant<int, 8>{});
  f(std::integral_constant<int, kMostExperts / kWarp>{});
}
// Calls f(a pointer to the type's numbers).
template <class F>
void by_type(FloatType type, const F& f) {
  type == FloatType::fp32 ? f(static_cast<float*>(nullptr)) : f(static_cast<std::uint16_t*>(nullptr));
}
template <class T>
T* as(T*, void* p) {
  return static_cast<T*>(p);
}
template <class T>
const T* as(T*, const void* p) {
  return static_cast<const T*>(p);
}

}    // namespace

const char* choose_experts_device(std::int32_t* chosen, const void* scores, FloatType type, const float* bias, std::int64_t tokens,
                                  const ChoiceRule& rule, void* stream) {
  if (tokens == 0) return nullptr;
  by_type(type, [&](auto* t) {
    by_numbers_of_a_lane(rule.experts, [&](auto n) {
      choose<n.value><<<num_blocks(tokens, kWarps), kBlock, 0, stream_of(stream)>>>(chosen, as(t, scores), bias, tokens, rule);
    });
  });
  return launch_error();
}

const char* softmax_device(void* y, const void* x, FloatType type, std::int64_t rows, std::int64_t d, void* stream) {
  if (rows == 0) return nullptr;
  by_type(type, [&](auto* t) {
    by_numbers_of_a_lane(d, [&](auto n) {
      softmax_of_rows<n.value><<<num_blocks(rows, kWarps), kBlock, 0, stream_of(stream)>>>(as(t, y), as(t, x), rows, static_cast<int>(d));
    });
  });
  return launch_error();
}

const char* softmax_rows_grad_device(void* dx, const void* y, const void* dy, FloatType type, std::int64_t rows, std::int64_t d,
                                     void* stream) {
  if (rows == 0) return nullptr;
  by_type(type, [&](auto* t) {
    by_numbers_of_a_lane(d, [&](auto n) {
      softmax_grad_of_rows<n.value>
          <<<num_blocks(rows, kWarps), kBlock, 0, stream_of(stream)>>>(as(t, dx), as(t, y), as(t, dy), rows, static_cast<int>(d));
    });
  });
  return launch_error();
}

const char* normalize_device(void* y, const void* x, const FewNumbers& numbers, void* stream) {
  if (numbers.rows == 0) return nullptr;
  by_type(numbers.type,
          [&](auto* t) { normalize_few<<<num_blocks(numbers.rows, kBlock), kBlock, 0, stream_of(stream)>>>(as(t, y), as(t, x), numbers); });
  return launch_error();
}

const char* normalize_grad_device(void* dx, const void* x, const void* dy, const FewNumbers& numbers, void* stream) {
  if (numbers.rows == 0) return nullptr;
  by_type(numbers.type, [&](auto* t) {
    normalize_few_grad<<<num_blocks(numbers.rows, kBlock), kBlock, 0, stream_of(stream)>>>(as(t, dx), as(t, x), as(t, dy), numbers);
  });
  return launch_error();
}

const char* take_device(void* y, const void* x, std::int64_t bytes, const TakenIds& taken, void* stream) {
  if (taken.rows == 0 || taken.k == 0) return nullptr;
  const dim3 block = block_for(taken.k);
  const unsigned blocks = num_blocks(taken.rows, block.y);
  if (bytes == 4)
    take_numbers<<<blocks, block, 0, stream_of(stream)>>>(static_cast<std::uint32_t*>(y), static_cast<const std::uint32_t*>(x), taken);
  else
    take_numbers<<<blocks, block, 0, stream_of(stream)>>>(static_cast<std::uint16_t*>(y), static_cast<const std::uint16_t*>(x), taken);
  return launch_error();
}

const char* put_device(void* dx, const void* dy, FloatType type, const TakenIds& taken, void* stream) {
  if (taken.rows == 0 || taken.d == 0) return nullptr;
  const dim3 block = block_for(taken.d);
  by_type(type,
          [&](auto* t) { put_numbers<<<num_blocks(taken.rows, block.y), block, 0, stream_of(stream)>>>(as(t, dx), as(t, dy), taken); });
  return launch_error();
}

}    // namespace sheaf
