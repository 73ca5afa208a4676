#pragma once
// Test inputs from the cases of an op, and one call of it.
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "ir/graph.h"
#include "ops/op_table.h"

namespace sheaf::testing {

enum class Mode { fp64, integer };

// One case made concrete: the expanded rule, types, and a tensor per operand (undefined: absent).
struct Call {
  const OpDef* op;
  Attrs attrs;
  Rule rule;
  std::vector<Type> in_types;    // of the operands that are present
  std::vector<at::Tensor> in;    // per operand
  std::vector<std::size_t> present;
  std::vector<bool> real;    // per operand: present, and its domain is a number, not an index, label or count (in integer mode too)

  std::vector<at::Tensor> run(Mode mode) const { return run_on(in, 0, mode); }
  // The kernel on other tensors of the same roles (a rank's pieces); the outputs' shapes follow from theirs.
  std::vector<at::Tensor> run_on(const std::vector<at::Tensor>& in, std::int64_t owner_begin, Mode mode) const;
};

Call make_call(const OpDef& op, const Case& c, Mode mode, std::uint64_t seed);
at::Tensor random_tensor(const Shape& shape, Mode mode, std::mt19937_64& rng);
std::string describe(const OpDef& op, std::size_t case_index);

// The op and its gradient as a graph: in segment `first`, over inputs.
struct GradientGraph {
  Graph graph;
  Values in, out, dout;    // in: absent operands are absent; dout: one per output that has a gradient
  Values gradients;        // per operand; absent where there is none
  std::vector<bool> wanted;
};
GradientGraph gradient_graph(const Call& call);

// All cases of all ops as test parameters; names read "rms_norm_0".
struct Param {
  const OpDef* op;
  const Case* c;
  std::size_t index;
};
std::vector<Param> all_cases();
std::string param_name(const ::testing::TestParamInfo<Param>& info);

}    // namespace sheaf::testing
