#pragma once
// Writes graphs: one method per op (from op_list.inc), and the declarations that models use.
#include <functional>

#include "ir/graph.h"
#include "ops/list_macros.h"
#include "ops/op_table.h"

namespace sheaf {

// The step argument 1 / number of micro-batches: the weight of a loss that is made of one micro-batch's statistics.
inline constexpr const char* kMicroBatchShare = "micro_batch_share";

// What an op yields: converts to the only output; more are indexed.
struct Results : Values {
  using Values::Values;
  explicit Results(Values values) : Values(std::move(values)) {}
  operator Value() const;    // NOLINT: implicit on purpose; InternalError unless there is exactly one
};

class Builder {
 public:
  // frozen: parameters are not trained, so each is one state in the compute dtype.
  explicit Builder(Graph& graph, Segment segment = Segment::first, DType compute = DType::fp32, bool frozen = false)
      : graph_(graph), segment_(segment), compute_(compute), frozen_(frozen) {}

  Graph& graph() { return graph_; }
  const Type& type(Value v) const { return graph_.type(v); }
  std::int64_t extent(Value v, std::size_t dim) const { return type(v).shape[dim]; }
  DType compute() const { return compute_; }
  Segment segment() const { return segment_; }
  void in(Segment segment) { segment_ = segment; }
  // Parameters with such a name are not trained: one state in `stored`, which ops read in the compute dtype.
  void freeze(std::function<bool(std::string_view)> names, DType stored) { frozen_names_ = std::move(names), stored_ = stored; }

  // ---- declarations
  // Rows of a micro-batch: the step's rows are the input [M, shape...], the result is its slice for the current micro-batch. The graph
  // is first built for M = 1; the pass micro_batches sets M. dims: a letter for each dim of `shape`; b are rows, s tokens of a row.
  Value input(std::string name, DType dtype, Shape shape, Text dims = "b s");
  // A weight, named as in the HF folder, dims split and never merged. init: "normal" (std), "zeros" or "ones".
  // Returns what ops see: @name in fp32 or frozen, the derived @name.c otherwise.
  Value parameter(const std::string& name, Shape shape, const std::string& init, double std = 0);
  // One that ops see in fp32 whatever the compute dtype. Not trained: a buffer that is loaded and saved as a weight.
  Value parameter_fp32(const std::string& name, Shape shape, const std::string& init, double std = 0, bool trained = true);
  Value constant(std::string name, DType dtype, Shape shape, std::vector<double> data);
  Value argument(const std::string& name, DType dtype = DType::fp32);    // @step.NAME; declared once, then found
  // Sum of a value over the micro-batches of the step, seen by the epilogue.
  Value step_sum(const std::string& name, Value value);
  // A number that the host reads after the step.
  void metric(const std::string& name, Value value);
  // In the epilogue: state := expr if the step is committed.
  void update(Value state, Value expr, Value commit);

  // ---- ops
  Results call(const OpDef& op, Values in, Attrs attrs, std::string note = {});
#define OP(name, operands, attributes)                                                                                      \
  Results name(SHEAF_EACH(SHEAF_OPERAND_PARAM, SHEAF_UNWRAP operands) SHEAF_EACH(SHEAF_ATTR_PARAM, SHEAF_UNWRAP attributes) \
                   std::string note = {}) {                                                                                 \
    return call(op(OpId::name), {SHEAF_EACH(SHEAF_OPERAND_ARG, SHEAF_UNWRAP operands)},                                     \
                {SHEAF_EACH(SHEAF_ATTR_ARG, SHEAF_UNWRAP attributes)}, std::move(note));                                    \
  }
#define OP_N(name, operands, attributes) \
  Results name(Values operands_, std::string note = {}) { return call(op(OpId::name), std::move(operands_), {}, std::move(note)); }
#include "ops/op_list.inc"
#undef OP
#undef OP_N
  // The order that reads well: einsum("b s k, h k -> b s h", x, w).
  Value einsum(Text rule, Value x, Value y = {}, std::string note = {}) {
    return einsum(x, y, std::move(rule), Text("same"), std::move(note));
  }

 private:
  Graph& graph_;
  Segment segment_;
  DType compute_;
  bool frozen_ = false;
  std::function<bool(std::string_view)> frozen_names_;
  DType stored_ = DType::fp32;
};

// What a gradient function gets; it returns one value per operand, absent where there is none.
struct Grad {
  Builder& b;
  const Values &in, &out, &dout;    // dout: absent where nothing depends on the output
  const Attrs& attrs;
  const std::vector<bool>& wanted;    // per operand

  Value x(std::size_t i = 0) const { return in[i]; }
  Value dy(std::size_t i = 0) const { return dout[i]; }
  // Gradients of states are summed over many tokens: in fp32. Those of other values have the dtype of the value.
  Text dtype_for(std::size_t operand) const;
};

}    // namespace sheaf
