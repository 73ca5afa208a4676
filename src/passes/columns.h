#pragma once
// Values that may lie side by side as columns of one matrix, so that one product makes or reads them all: results of einsum_each, and first
// operands of einsum_sum. Each is [b, s, ..]; a row of the matrix is a token. Between the rows of such a value there are gaps, with which
// not every kernel can do.
#include <cstdint>

#include "ir/graph.h"

namespace sheaf {

// Operands and outputs of a call, by bit, that may have gaps behind every token.
struct ColumnMask {
  std::uint32_t in = 0, out = 0;
};
using ColumnMasks = std::array<std::vector<ColumnMask>, kSegments.size()>;    // by node, as Graph::segments; empty: none may

class Columns {
 public:
  Columns(const Graph& graph, const ColumnMasks& masks);    // both are kept by reference

  // Whoever makes or reads v can do with gaps, and it is a result of [b, s, ..] with whole accesses of 16 bytes a token.
  bool may_have_gaps(Value v) const { return may_[static_cast<std::size_t>(v.id)]; }
  // Groups to lay side by side, in this order; no value is in two.
  std::vector<Values> groups() const;
  // Weights of such products, results of gathers, to lay one after the other, in this order; no value is in two.
  std::vector<Values> stacks() const;

 private:
  const Graph& graph_;
  const ColumnMasks& masks_;
  std::vector<bool> may_;    // by Value::id
};

}    // namespace sheaf
