#pragma once
// Device kernels around products of routed rows with weights of their experts: rows are sorted by expert, `ends[i]` is one behind the last
// row of the i-th expert of this rank. What they share with others is how rows are summed. Each returns the run-time library's error text,
// nullptr if all is well.
#include <cstdint>

#include "runtime/kernels/float_type.h"

namespace sheaf {

// ends [experts] of expert [rows], which counts from `begin`.
const char* ends_of_experts_device(std::int32_t* ends, std::int64_t experts, const std::int32_t* expert, std::int64_t rows,
                                   std::int64_t begin, void* stream);

// A number for every one of a row's of every expert, of the type of the rows: to row r belong those of expert[r] - begin.
struct ExpertBiases {
  const void* data = nullptr;
  const std::int32_t* expert = nullptr;
  std::int64_t begin = 0;
};

// Sums of rows [rows, d], or of those of each expert, in fp32 and always in the same order. d and the pitch are multiples of 8.
struct RowSums {
  FloatType type, out_type;
  std::int64_t rows, d;
  std::int64_t pitch;                    // elements from a row to the next
  const std::int32_t* ends = nullptr;    // of the experts; nullptr: one, which has all rows
  std::int64_t experts = 1;
};
// parts [row_sum_parts(sums), experts, d]: rows are shared among blocks, of which an expert gets as many as the one that has most needs.
std::int64_t row_sum_parts(const RowSums& sums);
const char* sums_of_rows_device(void* out, float* parts, const void* rows, const RowSums& sums, void* stream);

// out[e] = x[e] (bf16, `each` numbers, a multiple of 8), 0 for an expert without rows. out may be x.
const char* of_experts_with_rows_device(void* out, FloatType out_type, const void* x, const std::int32_t* ends, std::int64_t experts,
                                        std::int64_t each, void* stream);

}    // namespace sheaf
