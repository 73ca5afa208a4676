#pragma once
// LibTorch's words for ours. For .cpp files.
#include <ATen/core/Tensor.h>

#include "base/dtype.h"

namespace sheaf {

inline at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::fp64:
      return at::kDouble;
    case DType::fp32:
      return at::kFloat;
    case DType::bf16:
      return at::kBFloat16;
    case DType::fp16:
      return at::kHalf;
    case DType::i64:
      return at::kLong;
    case DType::i32:
      return at::kInt;
    case DType::i16:
      return at::kShort;
    case DType::u16:
      return at::kUInt16;
    case DType::u8:
      return at::kByte;
    case DType::boolean:
      return at::kBool;
  }
  return at::kFloat;
}

}    // namespace sheaf
