#pragma once
#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace sheaf {

// Names in IR text are those of this enum's table: fp32, bf16, i32, ...
enum class DType : std::uint8_t { fp64, fp32, bf16, fp16, i64, i32, i16, u16, u8, boolean };

std::string_view name(DType dtype);
std::int64_t size_bytes(DType dtype);
bool is_float(DType dtype);
std::optional<DType> dtype_from_name(std::string_view name);           // IR names; nullopt: unknown
std::optional<DType> dtype_from_safetensors(std::string_view name);    // F32, BF16, I64, ...; nullopt: unknown
std::string_view safetensors_name(DType dtype);
std::optional<DType> dtype_from_hf(std::string_view name);    // config.json: float32, bfloat16, float16, torch.float32
std::string_view hf_name(DType dtype);

// The bits of the nearest bf16, ties to even; a NaN becomes a quiet one.
constexpr std::uint16_t bf16_bits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
constexpr float float_of_bf16(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

// A number of fp32 in two parts: `high` is the number in bf16, rounded to nearest, ties away from zero; `low` is the lower half of its
// bits, as they are. Together they are the number, bit for bit, but for a NaN, which becomes a quiet one. What a cast to bf16 makes differs
// from `high` in ties alone.
struct SplitFloat {
  std::uint16_t high;    // bits of a bf16
  std::int16_t low;
};
constexpr SplitFloat split_float(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return {static_cast<std::uint16_t>(bits >> 16 | 0x40u), 0};
  return {static_cast<std::uint16_t>((bits + 0x8000u) >> 16), static_cast<std::int16_t>(bits)};
}
constexpr float join_float(SplitFloat parts) {
  return std::bit_cast<float>((std::uint32_t{parts.high} << 16) + static_cast<std::uint32_t>(std::int32_t{parts.low}));
}

}    // namespace sheaf
