#pragma once
// Device kernels around products of routed rows with weights of their experts: rows are sorted by expert, `ends[i]` is one behind the last
// row of the i-th expert of this rank. Each returns the run-time library's error text, nullptr if all is well.
#include <cstdint>

#include "runtime/kernels/float_type.h"

namespace sheaf {

// ends [experts] of expert [rows], which counts from `begin`.
const char* ends_of_experts_device(std::int32_t* ends, std::int64_t experts, const std::int32_t* expert, std::int64_t rows,
                                   std::int64_t begin, void* stream);

// rows[r] = w[expert[r] - begin]; row_bytes is a multiple of 16.
const char* rows_of_experts_device(void* rows, const void* w, const std::int32_t* expert, std::int64_t num_rows, std::int64_t begin,
                                   std::int64_t row_bytes, void* stream);

// out[e] = the sum of the rows of expert e, in fp32 and always in the same order, by way of parts [kPartsOfExpert, experts, d]: one expert
// may have most of the rows. d is a multiple of 8.
inline constexpr int kPartsOfExpert = 8;
const char* sums_of_experts_device(void* out, FloatType out_type, float* parts, const void* rows, FloatType type, const std::int32_t* ends,
                                   std::int64_t experts, std::int64_t d, void* stream);

// out[e] = x[e] (bf16, `each` numbers, a multiple of 8), 0 for an expert without rows. out may be x.
const char* of_experts_with_rows_device(void* out, FloatType out_type, const void* x, const std::int32_t* ends, std::int64_t experts,
                                        std::int64_t each, void* stream);

}    // namespace sheaf
