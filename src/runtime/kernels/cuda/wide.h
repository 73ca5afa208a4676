#pragma once
// For .cu files whose threads take eight neighbours of a row at a time, in registers as fp32: by one access of 16 bytes (bf16) or two
// (fp32), so rows are multiples of eight long and begin on 16 bytes.
#include "runtime/kernels/float_type.h"
#include "runtime/kernels/gpu.h"

namespace sheaf {

inline constexpr int kWarp = 32;
inline constexpr int kWidth = 8;

inline __device__ float from_bits(std::uint32_t low16) { return __uint_as_float(low16 << 16); }
inline __device__ std::uint32_t to_bits(float x) { return to_bf16_pair(x, 0) & 0xffffu; }

inline __device__ float load(const float* p) { return *p; }
inline __device__ float load(const std::uint16_t* p) { return from_bits(*p); }
inline __device__ void store(float x, float* p) { *p = x; }
inline __device__ void store(float x, std::uint16_t* p) { *p = static_cast<std::uint16_t>(to_bits(x)); }

inline __device__ void load(float (&v)[4], const float* p) {
  const float4 a = *reinterpret_cast<const float4*>(p);
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
}
inline __device__ void load(float (&v)[kWidth], const float* p) {
  const float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
inline __device__ void load(float (&v)[kWidth], const std::uint16_t* p) {
  const uint4 a = *reinterpret_cast<const uint4*>(p);
  const std::uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) v[2 * i] = from_bits(words[i] & 0xffffu), v[2 * i + 1] = from_bits(words[i] >> 16);
}
inline __device__ void store(const float (&v)[4], float* p) { *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]); }
inline __device__ void store(const float (&v)[kWidth], float* p) {
  reinterpret_cast<float4*>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
inline __device__ void store(const float (&v)[kWidth], std::uint16_t* p) {
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = to_bf16_pair(v[2 * i], v[2 * i + 1]);
  *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
}

// f(T) as a constant of the compiler.
template <class F>
void with_type(FloatType type, F&& f) {
  type == FloatType::fp32 ? f.template operator()<float>() : f.template operator()<std::uint16_t>();
}

// Kernels without sums along a row: x of a block goes through the chunks of a row (kWidth numbers each) in equal turns, y through rows.
inline constexpr int kBlock = 256;
inline dim3 block_for(std::int64_t chunks) {
  const std::int64_t turns = (chunks + kBlock - 1) / kBlock, x = (chunks + turns - 1) / turns;
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(kBlock / x));
}
inline unsigned num_blocks(std::int64_t work, std::int64_t of_a_block) {
  return static_cast<unsigned>((work + of_a_block - 1) / of_a_block);
}
inline int power_of_two_from(std::int64_t n) {
  int power = 1;
  while (power < n) power *= 2;
  return power;
}

// The sum over each group of `lanes` threads, a power of two, by halves; each thread gets the same bits. The whole warp calls it.
inline __device__ float sum_of_lanes(float x, int lanes = kWarp) {
#pragma unroll
  for (int other = kWarp / 2; other > 0; other /= 2)
    if (other < lanes) x += __shfl_xor_sync(0xffffffffu, x, other);
  return x;
}

}    // namespace sheaf
