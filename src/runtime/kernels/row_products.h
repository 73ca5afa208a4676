#pragma once
// Device kernels of einsums that go row by row: a row times its number, the inner product of two rows; and of biases around them. Raw
// pointers and a stream; sums in fp32 and in a fixed order. Each returns the run-time library's error text, nullptr if all is well.
#include <cstdint>

#include "runtime/kernels/experts.h"
#include "runtime/kernels/float_type.h"

namespace sheaf {

// y[r, i] = w[r] (x[r, i] + the bias of its expert), where both are given or one; x, y [rows, d], w [rows]; d is a multiple of 8.
const char* scale_rows_device(void* y, const void* x, FloatType type, const void* w, FloatType w_type, const ExpertBiases& biases,
                              std::int64_t rows, std::int64_t d, void* stream);
// Its gradients where both are: dx[r, i] = w[r] dy[r, i], dw[r] = the sum over i of dy[r, i] (x[r, i] + the bias of its expert).
const char* scale_rows_grad_device(void* dx, void* dw, FloatType dw_type, const void* x, const void* dy, FloatType type, const void* w,
                                   FloatType w_type, const ExpertBiases& biases, std::int64_t rows, std::int64_t d, void* stream);

// y[r] = the sum over i of a[r, i] b[r, i]; a, b [rows, d], y [rows]; d is a multiple of 8.
const char* dot_rows_device(void* y, FloatType y_type, const void* a, const void* b, FloatType type, std::int64_t rows, std::int64_t d,
                            void* stream);

}    // namespace sheaf
