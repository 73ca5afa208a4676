#pragma once
// Device kernels of dispatch, combine and their weights (ops/routing.h): raw pointers and a stream, nothing read back by the host.
// Each returns the run-time library's error text, nullptr if all is well. The ops' own kernels are the portable twins and the oracle.
#include <cstdint>

#include "runtime/kernels/float_type.h"

namespace sheaf {

// The inverse of slot [rows]: row[slot[r]] = r. `row` is -1 before, for slots that no row has.
const char* rows_of_slots_device(std::int32_t* row, const std::int32_t* slot, std::int64_t rows, void* stream);

// Tokens of the rank, `choices` slots each, and numbers of a token or of a row; d is a multiple of 8 for combine, row_bytes of 16.
struct Tokens {
  std::int64_t count, choices;
  const std::int32_t* row;    // [count, choices], made by rows_of_slots_device
};
// rows[row] = x[token], from the side of the tokens: each is read once, however many rows it has.
const char* dispatch_device(void* rows, const void* x, const Tokens& tokens, std::int64_t row_bytes, void* stream);
// y[token] = the sum of its rows, in order of its choices.
const char* combine_device(void* y, const void* rows, FloatType type, const Tokens& tokens, std::int64_t d, void* stream);

// Numbers of 2 or 4 bytes:  rows[r] = w[slot[r]];  w[slot[r]] = rows[r].
const char* dispatch_weights_device(void* rows, const void* w, const std::int32_t* slot, std::int64_t num_rows, std::int64_t bytes,
                                    void* stream);
const char* combine_weights_device(void* w, const void* rows, const std::int32_t* slot, std::int64_t num_rows, std::int64_t bytes,
                                   void* stream);

}    // namespace sheaf
