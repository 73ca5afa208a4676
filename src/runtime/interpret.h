#pragma once
// Runs a graph node by node with fresh tensors: the reference that plans are compared with, and the engine of the rule tests.
#include <unordered_map>

#include "ir/graph.h"

namespace sheaf {

enum class Numbers {
  real,       // the kernels of the ops, in the dtypes of the graph
  planned,    // the same by the kernel rows that a deterministic plan on the CPU takes, so that bits can be compared
  whole,      // the same on routed tensors as a whole (OpDef::meaning): no rows
  integer     // int64 with wrap-around: any order of summation is exact, so partitioned and whole programs agree with ==
};

class Interpreter {
 public:
  explicit Interpreter(const Graph& graph, Numbers numbers = Numbers::real);
  ~Interpreter();

  // Inputs, states, arguments and carried values are given before a run; results are read after it.
  void give(Value v, const at::Tensor& tensor);
  const at::Tensor& operator[](Value v) const;
  void run(Segment segment);

 private:
  const Graph& graph_;
  Numbers numbers_;
  std::unordered_map<int, at::Tensor> tensors_;
};

// One call of an op in integer mode. An op whose kernel is exact on int64 runs it; any other becomes a fixed mixing function with the same
// rule: linear where the rule says so, sums over the factors that an output lacks, and for `full` factors depends on the whole row.
void integer_kernel(const OpDef& op, const Rule& rule, const Args& args);

}    // namespace sheaf
