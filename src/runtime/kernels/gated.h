#pragma once
// Device kernels of gated, weighted, biased or neither, of swiglu and geglu, and of their gradients: one pass over memory, in fp32 and
// rounded once. Each returns the run-time library's error text, nullptr if all is well. The ops' own kernels are the portable twins and the
// oracle.
#include <cstdint>

#include "runtime/kernels/experts.h"
#include "runtime/kernels/float_type.h"

namespace sheaf {

enum class Activation { silu, gelu, gelu_tanh, relu, clamped_swiglu };

// A number in fp32 or bf16 for each row.
struct RowNumbers {
  void* data = nullptr;
  FloatType type = FloatType::fp32;
};

// x [rows, 2, m], gate before up, or [rows, m, 2] if the pairs are neighbours; y [rows, m]. m is a multiple of 8.
struct Gated {
  std::int64_t rows, m;
  bool neighbours;
  Activation activation;
  float limit;    // 0: none
  // Where given, y = w act(gate) up; of the gradient, dw = the sum over m of dy act(gate) up.
  RowNumbers weights = {}, dweights = {};
  // Where given, and no weights are, x + the biases of a row's expert is in place of x.
  ExpertBiases biases = {};
};

const char* gated_device(void* y, const void* x, FloatType type, const Gated& gated, void* stream);
const char* gated_grad_device(void* dx, const void* x, const void* dy, FloatType type, const Gated& gated, void* stream);

// Gate and up as two tensors [rows, width] each; y and dy are without gaps. Pitches: elements from one row to the next, of several rows,
// multiples of 16 bytes as the width is then.
struct GluRows {
  std::int64_t rows, width;
  FloatType type;
  Activation activation;
  std::int64_t gate_pitch = 0, up_pitch = 0, dgate_pitch = 0, dup_pitch = 0;
};
// y = act(gate) up; dgate = dy up act'(gate), dup = dy act(gate).
const char* glu_device(void* y, const void* gate, const void* up, const GluRows& rows, void* stream);
const char* glu_grad_device(void* dgate, void* dup, const void* gate, const void* up, const void* dy, const GluRows& rows, void* stream);

}    // namespace sheaf
