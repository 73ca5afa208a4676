#pragma once
// What gated, weighted or not, and its gradients share: letters, where the pair of gate and up is, the activations. ATen headers: .cpp
// files only.
#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>

#include "ir/op.h"

namespace sheaf {

// The dim g of extent 2 in "e b s g m -> e b s m".
std::int64_t gate_dim(const Attrs& attrs);
// Of "e b s g m -> e b s m": both sides; "e b s" of the rows, y without the last; "e g m" of a bias per expert, x without b and s.
struct GatedLetters {
  std::string x, y, rows, bias;
};
GatedLetters gated_letters(const Attrs& attrs);
// gpt_oss: (up + 1) gate sigmoid(1.702 gate), after the clamp.
inline bool is_clamped_swiglu(const Attrs& attrs) { return attrs.text("activation") == "clamped_swiglu"; }
inline constexpr double kSwigluAlpha = 1.702;

}    // namespace sheaf
