#include "base/dtype.h"

#include <array>

namespace sheaf {
namespace {

struct Row {
  DType dtype;
  std::string_view name, safetensors, hf;
  std::int64_t bytes;
  bool floating;
};
constexpr std::array kRows = {
    Row{DType::fp64, "fp64", "F64", "float64", 8, true},   Row{DType::fp32, "fp32", "F32", "float32", 4, true},
    Row{DType::bf16, "bf16", "BF16", "bfloat16", 2, true}, Row{DType::fp16, "fp16", "F16", "float16", 2, true},
    Row{DType::i64, "i64", "I64", "int64", 8, false},      Row{DType::i32, "i32", "I32", "int32", 4, false},
    Row{DType::i16, "i16", "I16", "int16", 2, false},      Row{DType::u16, "u16", "U16", "uint16", 2, false},
    Row{DType::u8, "u8", "U8", "uint8", 1, false},         Row{DType::boolean, "bool", "BOOL", "bool", 1, false},
};
const Row& row(DType dtype) { return kRows[static_cast<std::size_t>(dtype)]; }

std::optional<DType> find(std::string_view Row::*column, std::string_view text) {
  for (const Row& r : kRows)
    if (r.*column == text) return r.dtype;
  return std::nullopt;
}

}    // namespace

std::string_view name(DType dtype) { return row(dtype).name; }
std::int64_t size_bytes(DType dtype) { return row(dtype).bytes; }
bool is_float(DType dtype) { return row(dtype).floating; }
std::string_view safetensors_name(DType dtype) { return row(dtype).safetensors; }
std::string_view hf_name(DType dtype) { return row(dtype).hf; }
std::optional<DType> dtype_from_name(std::string_view text) { return find(&Row::name, text); }
std::optional<DType> dtype_from_safetensors(std::string_view text) { return find(&Row::safetensors, text); }
std::optional<DType> dtype_from_hf(std::string_view text) {
  constexpr std::string_view kPrefix = "torch.";
  if (text.starts_with(kPrefix)) text.remove_prefix(kPrefix.size());
  return find(&Row::hf, text);
}

}    // namespace sheaf
