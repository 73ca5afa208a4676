// Compiled with -O3: the loops are written so that the compiler turns them into vector code (no branch, selects only, no denormal
// arithmetic, so that a flush-to-zero mode of the thread changes nothing).
#include "checkpoint/convert.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

#include "base/error.h"

namespace sheaf {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian and are read as they are");

template <class T>
T load(const void* from, std::int64_t i) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(from) + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
  return value;
}
template <class T>
void store(void* to, std::int64_t i, T value) {
  std::memcpy(static_cast<std::byte*>(to) + i * static_cast<std::int64_t>(sizeof(T)), &value, sizeof(T));
}

float from_fp16(std::uint16_t half) {
  const std::uint32_t magnitude = half & 0x7fffu, sign = (half & 0x8000u) << 16;
  const std::uint32_t normal = (magnitude << 13) + (112u << 23);    // exponent bias 15 -> 127
  const std::uint32_t special = (magnitude << 13) | 0x7f800000u;    // infinity, NaN with its payload
  const std::uint32_t tiny = std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f);
  const std::uint32_t bits = magnitude < 0x400u ? tiny : magnitude >= 0x7c00u ? special : normal;
  return std::bit_cast<float>(bits | sign);
}

std::uint16_t to_fp16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  const std::uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14 the ulp of a half is 2^-24, which is the ulp of a float in [0.5, 1): the addition rounds.
  const float shifted = std::bit_cast<float>(std::min(magnitude, 0x38800000u)) + 0.5f;
  const std::uint32_t tiny = std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u;
  const std::uint32_t special = magnitude > 0x7f800000u ? 0x7e00u | ((magnitude >> 13) & 0x3ffu) : 0x7c00u;
  const std::uint32_t half = magnitude < 0x38800000u ? tiny : magnitude >= 0x47800000u ? special : normal;
  return static_cast<std::uint16_t>(half | sign);
}

void to_fp32(DType from, const void* source, float* target, std::int64_t count) {
  switch (from) {
    case DType::bf16:
      return bf16_to_fp32(source, target, count);
    case DType::fp16:
      return fp16_to_fp32(source, target, count);
    case DType::fp64:
      for (std::int64_t i = 0; i < count; ++i) target[i] = static_cast<float>(load<double>(source, i));
      return;
    default:
      std::memcpy(target, source, static_cast<std::size_t>(count) * sizeof(float));
  }
}

void from_fp32(const float* source, DType to, void* target, std::int64_t count) {
  switch (to) {
    case DType::bf16:
      return fp32_to_bf16(source, target, count);
    case DType::fp16:
      return fp32_to_fp16(source, target, count);
    case DType::fp64:
      for (std::int64_t i = 0; i < count; ++i) store(target, i, static_cast<double>(source[i]));
      return;
    default:
      std::memcpy(target, source, static_cast<std::size_t>(count) * sizeof(float));
  }
}

}    // namespace

void bf16_to_fp32(const void* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = float_of_bf16(load<std::uint16_t>(from, i));
}
void fp16_to_fp32(const void* from, float* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = from_fp16(load<std::uint16_t>(from, i));
}
void fp32_to_bf16(const float* from, void* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) store(to, i, bf16_bits(from[i]));
}
void fp32_to_fp16(const float* from, void* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) store(to, i, to_fp16(from[i]));
}

bool is_convertible(DType from, DType to) { return from == to || (is_float(from) && is_float(to)); }

void convert(DType from, const void* source, DType to, void* target, std::int64_t count) {
  SHEAF_CHECK(is_convertible(from, to), "no conversion from {} to {}", name(from), name(to));
  if (count == 0) return;
  if (from == to) {
    std::memcpy(target, source, static_cast<std::size_t>(count * size_bytes(from)));
    return;
  }
  constexpr std::int64_t kBlock = 4096;    // elements; stays in the first-level cache
  std::array<float, kBlock> block;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t n = std::min(kBlock, count - begin);
    to_fp32(from, static_cast<const std::byte*>(source) + begin * size_bytes(from), block.data(), n);
    from_fp32(block.data(), to, static_cast<std::byte*>(target) + begin * size_bytes(to), n);
  }
}

}    // namespace sheaf
