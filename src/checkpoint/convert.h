#pragma once
// Numbers of one dtype to another, out of place. Pointers need no alignment: tensors in a file have none.
#include <cstdint>

#include "base/dtype.h"

namespace sheaf {

// Every value of the source becomes the nearest value of the target, ties to even; infinities, NaN and the sign of zero stay.
void bf16_to_fp32(const void* from, float* to, std::int64_t count);
void fp16_to_fp32(const void* from, float* to, std::int64_t count);
void fp32_to_bf16(const float* from, void* to, std::int64_t count);
void fp32_to_fp16(const float* from, void* to, std::int64_t count);

bool is_convertible(DType from, DType to);    // equal dtypes, or both of fp64, fp32, bf16, fp16
// The general form; fp64 passes through fp32.
void convert(DType from, const void* source, DType to, void* target, std::int64_t count);

}    // namespace sheaf
