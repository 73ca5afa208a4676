#pragma once
// Device kernels of a router's scores, choices and weights: raw pointers and a stream, nothing read back by the host. Each returns the
// run-time library's error text, nullptr if all is well. The ops' own kernels are the portable twins and the oracle.
#include <cstdint>

#include "runtime/kernels/float_type.h"

namespace sheaf {

inline constexpr std::int64_t kMostExperts = 512, kMostGroups = 32;    // a warp has a token: its scores in registers, a lane for a group

// Attributes of choose_experts.
struct ChoiceRule {
  int experts, k, groups, kept_groups, group_top;
};
// chosen [tokens, k] of scores [tokens, experts] + bias [experts]; bias may be nullptr.
const char* choose_experts_device(std::int32_t* chosen, const void* scores, FloatType type, const float* bias, std::int64_t tokens,
                                  const ChoiceRule& rule, void* stream);

// y = softmax of each row;  dx = y (dy - sum of y dy). d is at most kMostExperts.
const char* softmax_device(void* y, const void* x, FloatType type, std::int64_t rows, std::int64_t d, void* stream);
const char* softmax_rows_grad_device(void* dx, const void* y, const void* dy, FloatType type, std::int64_t rows, std::int64_t d,
                                     void* stream);

// Rows of a few numbers: a thread each.
struct FewNumbers {
  std::int64_t rows, d;
  FloatType type;
  float eps, floor;
};
const char* normalize_device(void* y, const void* x, const FewNumbers& numbers, void* stream);
const char* normalize_grad_device(void* dx, const void* x, const void* dy, const FewNumbers& numbers, void* stream);

// y[t, j] = x[t, ids[t, j]], numbers of 2 or 4 bytes;  dx[t, e] = the sum of dy[t, j] where ids[t, j] = e, in order of j.
struct TakenIds {
  const std::int32_t* ids;    // [rows, k]
  std::int64_t rows, k, d;
};
const char* take_device(void* y, const void* x, std::int64_t bytes, const TakenIds& taken, void* stream);
const char* put_device(void* dx, const void* dy, FloatType type, const TakenIds& taken, void* stream);

}    // namespace sheaf
