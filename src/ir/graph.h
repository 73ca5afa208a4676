#pragma once
// A training step as a graph: four flat SSA segments in program order over global tensors. docs/ir.md describes the text form.
#include <array>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ir/op.h"

namespace sheaf {

// The body of a micro-batch is `first` (it writes the accumulators) and `rest` (it adds to them; run M - 1 times).
enum class Segment { prologue, first, rest, epilogue };
inline constexpr std::array kSegments = {Segment::prologue, Segment::first, Segment::rest, Segment::epilogue};
std::string_view name(Segment segment);

enum class ValueKind {
  input,       // the rows of a step, [M, ...]; filled by the host
  state,       // lives across steps; read at the start, set in the epilogue
  argument,    // a step argument (lr, micro-batch index, ...): one device block, filled by the host
  constant,    // data is part of the graph
  carried,     // accumulator: lives across the micro-batches of one step
  result,      // output of a node
  gone         // removed by a pass; handles stay valid
};

struct ValueInfo {
  ValueKind kind = ValueKind::result;
  Type type;
  std::string name;            // all kinds but result; unique
  Attrs attrs;                 // state: init, std, trainable, of
  std::vector<double> data;    // constant
};

// States mirror the tensors of a HuggingFace file with their dims split; this is the shape before the split: the attribute file_shape,
// "[128 64]", or the state's own.
Shape file_shape(const ValueInfo& state);

struct Node {
  const OpDef* op = nullptr;
  Values in;
  Values out;
  Attrs attrs;
  std::string note;    // a comment: why it is there
};

struct Graph {
  Mesh mesh;
  std::vector<ValueInfo> values;
  std::array<std::vector<Node>, kSegments.size()> segments;

  const ValueInfo& operator[](Value v) const { return values[static_cast<std::size_t>(v.id)]; }
  ValueInfo& operator[](Value v) { return values[static_cast<std::size_t>(v.id)]; }
  const Type& type(Value v) const { return (*this)[v].type; }
  std::vector<Node>& nodes(Segment s) { return segments[static_cast<std::size_t>(s)]; }
  const std::vector<Node>& nodes(Segment s) const { return segments[static_cast<std::size_t>(s)]; }

  Value declare(ValueKind kind, std::string name, Type type, Attrs attrs = {});    // throws InternalError if the name is taken
  void undeclare(Value v);                                                         // a named value that nothing reads any more
  Value find(std::string_view name) const;                                         // absent if there is none
  Values all(ValueKind kind) const;                                                // in order of declaration

  // Appends a node, infers its outputs' types, returns them. `dtypes_kept`: outputs as `infer` says.
  Values append(Segment segment, const OpDef& op, Values in, Attrs attrs = {}, std::string note = {});
  // The same node without appending: for passes that rebuild a segment.
  Node make_node(const OpDef& op, Values in, Attrs attrs = {}, std::string note = {});

  Types types(const Values& in) const;
  // The largest piece of v that a rank holds, in elements and bytes: what its buffer has on every rank.
  std::int64_t local_elements(Value v) const { return num_elements(local_type(v).stored()); }
  Type local_type(Value v) const {
    return {type(v).dtype, largest_local_shape(type(v).shape, type(v).placement, mesh), {}, type(v).routed};
  }
  // Rows of experts that are cut over ranks: how many a rank holds is known when the router has decided.
  bool has_dynamic_rows(Value v) const { return type(v).routed > 0 && !type(v).placement.dim(0).empty(); }
  std::int64_t local_bytes(Value v) const { return local_elements(v) * size_bytes(type(v).dtype); }

 private:
  std::map<std::string, Value, std::less<>> names_;
};

using OpTable = std::vector<OpDef>;                                 // ops/op_table.h has the real one
const OpDef& find_op(const OpTable& ops, std::string_view name);    // throws UserError naming the nearest

// Text form; values are numbered in program order. print . parse = identity.
std::string print(const Graph& graph);
Graph parse_graph(std::string_view text, const OpTable& ops);    // throws UserError: "line 7: ..."
std::string name_of(const Graph& graph, Value v);                // "@w" or "%12": the name that print gives it

// L0: every operand is defined before its use in its segment or one that runs before it; no value twice; only states, accumulators
//     and prologue results cross segments. L1: types are what the rules infer; every trainable state has a gradient (see verify.cpp).
// L2: placed: in every node the operands and outputs lie as its rule says for one assignment of atoms to its factors, and partials pass
//     where the rule lets them. L3: local: no reshard is left, and every collective does what its placements say. Nothing to check for
//     either on a mesh without atoms.
enum class Level { l0 = 0, l1 = 1, l2 = 2, l3 = 3 };
void verify(const Graph& graph, Level level);    // throws InternalError naming the node

}    // namespace sheaf
