#pragma once
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

}    // namespace sheaf
