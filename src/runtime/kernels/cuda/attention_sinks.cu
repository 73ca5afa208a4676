#include "runtime/kernels/attention_sinks.h"
#include "runtime/kernels/cuda/packed.h"

namespace sheaf {
namespace {

constexpr int kTurns = 4;    // accesses of a thread to a tensor, all asked for before the first is used

// A "place" is a row and a head of it: one number of lse, `chunks` accesses of o. A block takes `of_a_block` places, which lie together; it
// reads their lse before it writes them.
template <class T, class S>
__global__ void __launch_bounds__(kBlock) scale_by_sinks(T* __restrict__ o, float* __restrict__ lse, const S* __restrict__ sinks,
                                                         std::int64_t places, int heads, int of_a_block, int chunks) {
  __shared__ float factors[kBlock];
  const std::int64_t block = gridDim.x - 1 - blockIdx.x;    // from the end, which attention wrote last: some of it is in the cache
  const std::int64_t first = block * of_a_block, left = places - first;
  const int count = left < of_a_block ? static_cast<int>(left) : of_a_block, accesses = count * chunks;
  T* const from = o + first * chunks * kPacked<T>;
  uint4 v[kTurns];
#pragma unroll
  for (int u = 0; u < kTurns; ++u)
    if (const int at = threadIdx.x + u * kBlock; at < accesses) v[u] = load_packed(from + at * kPacked<T>);
  if (threadIdx.x < count) {
    const std::int64_t place = first + threadIdx.x;
    const float without = lse[place], sink = to_float(sinks[place % heads]);
    factors[threadIdx.x] = 1 / (1 + expf(sink - without));    // exp(lse - lse')
    lse[place] = fmaxf(without, sink) + log1pf(expf(-fabsf(without - sink)));
  }
  __syncthreads();
#pragma unroll
  for (int u = 0; u < kTurns; ++u)
    if (const int at = threadIdx.x + u * kBlock; at < accesses) {
      const float factor = factors[at / chunks];
      float x[kPacked<T>];
      unpack<T>(x, v[u]);
#pragma unroll
      for (int i = 0; i < kPacked<T>; ++i) x[i] *= factor;
      store_packed(pack<T>(x), from + at * kPacked<T>);
    }
}

// x of a block goes through the accesses of a head, y through heads, z through rows. A thread sums over its rows what its channels add to
// the gradient of its head's sink, then the block over its threads of a head: parts [heads, gridDim.x], with the sign of their products.
template <class T, class S>
__global__ void __launch_bounds__(kBlock)
    sink_products(float* __restrict__ parts, const T* __restrict__ dy, const T* __restrict__ o, const float* __restrict__ lse,
                  const S* __restrict__ sinks, std::int64_t rows, int heads) {
  __shared__ float sums[kBlock];
  const int head = blockIdx.y * blockDim.y + threadIdx.y;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.z;
  float sum = 0;
  if (head < heads) {
    const float sink = to_float(sinks[head]);
    for (std::int64_t row = std::int64_t{blockIdx.x} * blockDim.z + threadIdx.z; row < rows; row += kTurns * step) {
      uint4 a[kTurns], b[kTurns];
      float of_row[kTurns];
#pragma unroll
      for (int u = 0; u < kTurns; ++u)
        if (row + u * step < rows) {
          const std::int64_t place = (row + u * step) * heads + head, at = (place * blockDim.x + threadIdx.x) * kPacked<T>;
          a[u] = load_packed(dy + at);
          b[u] = load_packed(o + at);
          of_row[u] = lse[place];
        }
#pragma unroll
      for (int u = 0; u < kTurns; ++u)
        if (row + u * step < rows) {
          float x[kPacked<T>], y[kPacked<T>], product = 0;
          unpack<T>(x, a[u]);
          unpack<T>(y, b[u]);
#pragma unroll
          for (int i = 0; i < kPacked<T>; ++i) product += x[i] * y[i];
          sum += fast_exp(sink - of_row[u]) * product;
        }
    }
  }
  sums[(threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x > 0 || threadIdx.z > 0 || head >= heads) return;
  float total = 0;
  for (unsigned z = 0; z < blockDim.z; ++z)
    for (unsigned x = 0; x < blockDim.x; ++x) total += sums[(z * blockDim.y + threadIdx.y) * blockDim.x + x];
  parts[std::int64_t{head} * gridDim.x + blockIdx.x] = total;
}

// dsinks = -sum of parts [heads, count]; a block has one head and is one warp.
__global__ void __launch_bounds__(kWarp) add_parts(float* __restrict__ dsinks, const float* __restrict__ parts, int count) {
  float sum = 0;
  for (int i = threadIdx.x; i < count; i += kWarp) sum -= parts[std::int64_t{blockIdx.x} * count + i];
  sum = sum_of_lanes(sum);
  if (threadIdx.x == 0) dsinks[blockIdx.x] = sum;
}

// Of sink_products: the heads of a row in equal turns, then rows, of which a block of CUDA has at most 64.
dim3 products_block(const SinkRows& shape) {
  const auto heads = static_cast<unsigned>(shape.heads), x = static_cast<unsigned>(shape.e / kWidth), most = kBlock / x;
  const unsigned turns = num_blocks(heads, most), y = num_blocks(heads, turns), z = kBlock / (x * y);
  return dim3(x, y, z < 64 ? z : 64);
}

// f(T, S) as constants of the compiler: of o and of the sinks.
template <class F>
void with_types(const SinkRows& shape, F&& f) {
  const bool wide = shape.sink_type == FloatType::fp32;
  if (shape.type == FloatType::fp16)
    wide ? f.template operator()<__half, float>() : f.template operator()<__half, __half>();
  else
    wide ? f.template operator()<std::uint16_t, float>() : f.template operator()<std::uint16_t, std::uint16_t>();
}

}    // namespace

const char* attention_sinks_device(void* o, float* lse, const void* sinks, const SinkRows& shape, void* stream) {
  const int chunks = static_cast<int>(shape.e / kWidth), fit = kTurns * kBlock / chunks, of_a_block = fit < kBlock ? fit : kBlock;
  const std::int64_t places = shape.rows * shape.heads;
  with_types(shape, [&]<class T, class S>() {
    scale_by_sinks<<<num_blocks(places, of_a_block), kBlock, 0, stream_of(stream)>>>(
        static_cast<T*>(o), lse, static_cast<const S*>(sinks), places, static_cast<int>(shape.heads), of_a_block, chunks);
  });
  return launch_error();
}

// As many blocks as run at a time on an H100 or H200, whatever the device, if there are rows for all: they fix the order of the sums.
std::int64_t attention_sinks_parts(const SinkRows& shape) {
  constexpr unsigned kResident = 132 * 4;
  const dim3 block = products_block(shape);
  const unsigned all = num_blocks(shape.rows, block.z * kTurns), most = num_blocks(kResident, num_blocks(shape.heads, block.y));
  return all < most ? all : most;
}

const char* attention_sinks_grad_device(float* dsinks, float* parts, const void* dy, const void* o, const float* lse, const void* sinks,
                                        const SinkRows& shape, void* stream) {
  const auto s = stream_of(stream);
  const dim3 block = products_block(shape);
  const auto count = static_cast<unsigned>(attention_sinks_parts(shape)), heads = static_cast<unsigned>(shape.heads);
  with_types(shape, [&]<class T, class S>() {
    sink_products<<<dim3(count, num_blocks(heads, block.y)), block, 0, s>>>(
        parts, static_cast<const T*>(dy), static_cast<const T*>(o), lse, static_cast<const S*>(sinks), shape.rows, static_cast<int>(heads));
  });
  add_parts<<<heads, kWarp, 0, s>>>(dsinks, parts, static_cast<int>(count));
  return launch_error();
}

}    // namespace sheaf
