#pragma once
// Sum of squares in one pass over memory: every block sums its share, a last block the blocks' sums, in fp32 and always in the same order.
#include <cstdint>

#include "runtime/kernels/float_type.h"

namespace sheaf {

inline constexpr int kSumsqParts = 1024;    // fp32 numbers of scratch

// cuda/sumsq.cu. out: one fp32 number. Nothing but launches on `stream` (a cudaStream_t); returns the run-time library's error text,
// nullptr if all is well.
const char* sumsq_device(float* out, float* parts, const void* x, FloatType type, std::int64_t n, void* stream);

}    // namespace sheaf
