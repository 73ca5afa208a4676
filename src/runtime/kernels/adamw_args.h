#pragma once
// The operands of op adamw for the kernels of adamw.h. For .cpp files of rows.
#include <ATen/core/Tensor.h>

#include "ir/op.h"
#include "runtime/kernels/adamw.h"

namespace sheaf {

// The kernels work in place: where the plan gave the outputs bytes of their own, w, m, v are copied there first.
struct AdamwCall {
  explicit AdamwCall(const Args& a) : n(a.out[0].numel()) {
    for (std::size_t i = 0; i < 3; ++i)
      if (a.out[i].data_ptr() != a.in[i].data_ptr()) a.out[i].copy_(a.in[i]);
    w = a.out[0].data_ptr<float>(), m = a.out[1].data_ptr<float>(), v = a.out[2].data_ptr<float>();
    g = {a.in[3].const_data_ptr(), a.in[3].scalar_type() == at::kFloat ? FloatType::fp32 : FloatType::bf16};
    const auto number = [&](std::size_t i) { return a.in[i].data_ptr<float>(); };
    scalars = {number(4), number(5), number(6), number(7), number(8), number(9), number(10)};
    settings = {static_cast<float>(a.attrs.number("eps")), static_cast<float>(a.attrs.number("weight_decay")), a.attrs.flag("decoupled")};
  }

  float *w, *m, *v;
  AdamwGradient g;
  std::int64_t n;
  AdamwScalars scalars;
  AdamwSettings settings;
};

inline bool takes_adamw(const Attrs&, const Types& in) {
  constexpr std::size_t kGradient = 3;
  for (std::size_t i = 0; i < in.size(); ++i)
    if (!in[i] || (in[i]->dtype != DType::fp32 && (i != kGradient || in[i]->dtype != DType::bf16))) return false;
  return true;
}

}    // namespace sheaf
