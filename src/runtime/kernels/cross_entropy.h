#pragma once
// Device kernels of cross-entropy over rows of logits: raw pointers and a stream. Each reads the logits once, in 16-byte accesses wherever
// a row begins, computes in fp32 and sums in an order that the shape fixes. Each returns the run-time library's error text, nullptr if all
// is well. The ops' own kernels are the portable twins and the oracle.
#include <cstdint>

#include "runtime/kernels/float_type.h"

namespace sheaf {

// One label a row, i64 or i32; negative: ignored. A rank answers for the labels in [begin, begin + v).
struct Labels {
  const void* ids;
  bool is_i64;
  std::int64_t begin;
};

// Of x [rows, v]:  m = max,  s = sum of exp(x - m),  p = x[label], 0 where there is none; each [rows]. v may be 0: -inf, 0, 0. A NaN
// among the logits is in s. By the online softmax (Milakov, Gimelshein 2018).
const char* softmax_sums_device(float* m, float* s, float* p, const void* x, FloatType type, const Labels& labels, std::int64_t rows,
                                std::int64_t v, void* stream);
// m alone, NaN if there is one; s alone, for a given m.
const char* row_max_device(float* m, const float* x, std::int64_t rows, std::int64_t v, void* stream);
const char* sum_exp_device(float* s, const float* x, const float* m, std::int64_t rows, std::int64_t v, void* stream);

// y [rows, v] in the type of x = ds exp(x - m), + dp at the label. m, ds, dp [rows]. y may be x.
const char* logits_grad_device(void* y, const void* x, FloatType type, const float* m, const float* ds, const float* dp,
                               const Labels& labels, std::int64_t rows, std::int64_t v, void* stream);

}    // namespace sheaf
