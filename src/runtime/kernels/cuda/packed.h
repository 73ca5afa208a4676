#pragma once
// For .cu files that move 16 bytes a thread at a time and keep them as they lie until they compute with them in fp32: numbers of 16 bits
// take half the registers.
#include <type_traits>

#include "runtime/kernels/cuda/wide.h"
#include "runtime/kernels/experts.h"

namespace sheaf {

template <class T>
inline constexpr int kPacked = 16 / sizeof(T);    // numbers of an access: 4 of float, 8 of bf16 (std::uint16_t) and of fp16 (__half)
inline std::int64_t accesses(FloatType type, std::int64_t numbers) { return numbers / (type == FloatType::fp32 ? 4 : 8); }

inline __device__ float to_float(float x) { return x; }
inline __device__ float to_float(std::uint16_t x) { return from_bits(x); }
inline __device__ float to_float(__half x) { return __half2float(x); }
inline __device__ void assign(float& to, float x) { to = x; }
inline __device__ void assign(std::uint16_t& to, float x) { to = static_cast<std::uint16_t>(to_bits(x)); }
inline __device__ void assign(__half& to, float x) { to = __float2half_rn(x); }

template <class T>
__device__ uint4 load_packed(const T* p) {
  return *reinterpret_cast<const uint4*>(p);
}
template <class T>
__device__ void store_packed(const uint4& a, T* p) {
  *reinterpret_cast<uint4*>(p) = a;
}

template <class T>
__device__ void unpack(float (&v)[kPacked<T>], const uint4& a) {
  const std::uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      v[i] = __uint_as_float(words[i]);
    } else if constexpr (std::is_same_v<T, __half>) {
      const float2 pair = __half22float2(reinterpret_cast<const __half2&>(words[i]));
      v[2 * i] = pair.x, v[2 * i + 1] = pair.y;
    } else {
      v[2 * i] = from_bits(words[i]), v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
}
template <class T>
__device__ uint4 pack(const float (&v)[kPacked<T>]) {
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      words[i] = __float_as_uint(v[i]);
    } else if constexpr (std::is_same_v<T, __half>) {
      const __half2 pair = __floats2half2_rn(v[2 * i], v[2 * i + 1]);
      words[i] = reinterpret_cast<const std::uint32_t&>(pair);
    } else {
      words[i] = to_bf16_pair(v[2 * i], v[2 * i + 1]);
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// In place of the type of an operand that a kernel is compiled without.
struct None {};
template <class T>
inline constexpr bool is_given = !std::is_same_v<T, None>;

template <class T>
__device__ void add_packed(float (&v)[kPacked<T>], const uint4& packed) {
  float w[kPacked<T>];
  unpack<T>(w, packed);
#pragma unroll
  for (int i = 0; i < kPacked<T>; ++i) v[i] += w[i];
}
// Where the biases of a row's expert begin, `parts` times `width` of each.
template <class T, int parts = 1>
__device__ const T* biases_of(const ExpertBiases& biases, std::int64_t row, int width) {
  return static_cast<const T*>(biases.data) + (biases.expert[row] - biases.begin) * parts * width;
}

// The compiler shall not keep in registers what it unpacked from `a` before this line: it unpacks again.
inline __device__ void forget_unpacked(uint4& a) {
#if defined(__HIP__)
  asm volatile("" : "+v"(a.x), "+v"(a.y), "+v"(a.z), "+v"(a.w));
#else
  asm volatile("" : "+r"(a.x), "+r"(a.y), "+r"(a.z), "+r"(a.w));
#endif
}

}    // namespace sheaf
