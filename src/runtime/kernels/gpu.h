#pragma once
// What .cu files use of the run-time library, by names that mean CUDA or HIP. No LibTorch here: kernels take raw pointers and a stream.
#include <cstdint>

#if defined(__HIP__)
#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>
#define gpuStream_t hipStream_t
#define gpuError_t hipError_t
#define gpuSuccess hipSuccess
#define gpuGetLastError hipGetLastError
#define gpuGetErrorString hipGetErrorString
// Among groups of 32, halves of a wavefront.
#define __shfl_sync(mask, x, lane, width) ((void)(mask), __shfl(x, lane, width))
#define __shfl_up_sync(mask, x, lanes, width) ((void)(mask), __shfl_up(x, lanes, width))
#define __shfl_xor_sync(mask, x, lanes) ((void)(mask), __shfl_xor(x, lanes, 32))
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define gpuStream_t cudaStream_t
#define gpuError_t cudaError_t
#define gpuSuccess cudaSuccess
#define gpuGetLastError cudaGetLastError
#define gpuGetErrorString cudaGetErrorString
#endif

namespace sheaf {

// Of the launches since it was last asked: the library's error text, nullptr if all is well.
inline const char* launch_error() {
  const gpuError_t error = gpuGetLastError();
  return error == gpuSuccess ? nullptr : gpuGetErrorString(error);
}

inline gpuStream_t stream_of(void* stream) { return static_cast<gpuStream_t>(stream); }

// The largest x of a group of 32 threads.
inline __device__ std::uint32_t warp_max(std::uint32_t x) {
#if defined(__HIP__)
  for (int offset = 16; offset > 0; offset /= 2) {
    const std::uint32_t other = __shfl_xor(x, offset, 32);
    x = other > x ? other : x;
  }
  return x;
#else
  return __reduce_max_sync(0xffffffffu, x);
#endif
}

// Two numbers as bf16, rounded to nearest even, the first in the low bits.
inline __device__ std::uint32_t to_bf16_pair(float low, float high) {
#if defined(__HIP__)
  const auto round = [](float x) -> std::uint32_t {
    const std::uint32_t bits = __float_as_uint(x);
    return x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  };
  return round(low) | round(high) << 16;
#else
  const __nv_bfloat162 pair = __float22bfloat162_rn(make_float2(low, high));
  return reinterpret_cast<const std::uint32_t&>(pair);
#endif
}

// e^x with an error of |x| 2^-24; 0 where that is denormal. __expf spends three instructions more on denormals.
inline __device__ float fast_exp(float x) {
#if defined(__HIP__)
  return __expf(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.4426950408889634f));
  return y;
#endif
}

}    // namespace sheaf
