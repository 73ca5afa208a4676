#pragma once
// The operands of ops adamw and adamw_split for the kernels of adamw.h. For .cpp files of rows.
#include <ATen/core/Tensor.h>

#include "ir/op.h"
#include "runtime/kernels/adamw.h"

namespace sheaf {

// The kernels work in place: where the plan gave the outputs bytes of their own, weights, m, v are copied there first.
struct AdamwCall {
  explicit AdamwCall(const Args& a) : n(a.out[0].numel()) {
    const std::size_t states = a.out.size();
    for (std::size_t i = 0; i < states; ++i)
      if (a.out[i].data_ptr() != a.in[i].data_ptr()) a.out[i].copy_(a.in[i]);
    if (states == 3)
      w.w = a.out[0].data_ptr<float>();
    else
      w.high = static_cast<std::uint16_t*>(a.out[0].data_ptr()), w.low = a.out[1].data_ptr<std::int16_t>();
    const auto type_of = [](const at::Tensor& t) { return t.scalar_type() == at::kFloat ? FloatType::fp32 : FloatType::bf16; };
    moments = {a.out[states - 2].data_ptr(), a.out[states - 1].data_ptr(), type_of(a.out[states - 1])};
    g = {a.in[states].const_data_ptr(), type_of(a.in[states])};
    const auto number = [&](std::size_t i) { return a.in[states + 1 + i].data_ptr<float>(); };
    scalars = {number(0), number(1), number(2), number(3), number(4), number(5), number(6)};
    settings = {static_cast<float>(a.attrs.number("eps")), static_cast<float>(a.attrs.number("weight_decay")), a.attrs.flag("decoupled")};
  }

  AdamwWeights w = {};
  AdamwMoments moments;
  AdamwGradient g;
  std::int64_t n;
  AdamwScalars scalars;
  AdamwSettings settings;
};

// Moments from operand `first` on, the gradient and scalars are fp32; both moments, and the gradient, may be bf16.
inline bool takes_adamw_from(std::size_t first, const Types& in) {
  const std::size_t gradient = first + 2;
  for (std::size_t i = first; i < in.size(); ++i)
    if (!in[i] || (in[i]->dtype != DType::fp32 && (i > gradient || in[i]->dtype != DType::bf16))) return false;
  return in[first]->dtype == in[first + 1]->dtype;
}
inline bool takes_adamw(const Attrs&, const Types& in) { return in[0] && in[0]->dtype == DType::fp32 && takes_adamw_from(1, in); }
inline bool takes_adamw_split(const Attrs&, const Types& in) {
  return in[0] && in[0]->dtype == DType::bf16 && in[1] && in[1]->dtype == DType::i16 && takes_adamw_from(2, in);
}

}    // namespace sheaf
