// lower_reshards: every reshard becomes the collectives and local operations of least cost (mesh/reshard_plan.h).
//
// On entry: placed (L2).
// On exit:  no reshard is left (L3). The note of the first step says what the reshard was for, the axes that it goes over and what a rank
//           sends.
//
//   %1 = reshard %0 : [a2|a1.a0|.] -> [a2|a1|.]      becomes      %1 = all_gather %0      # einsum x; over tp, 16 MiB
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "mesh/reshard_plan.h"
#include "ops/op_table.h"
#include "passes/pass.h"

namespace sheaf {
namespace {

const OpDef& op_of(Move move) {
  constexpr OpId kIds[] = {OpId::all_gather, OpId::all_to_all, OpId::reduce_scatter, OpId::all_reduce, OpId::slice, OpId::to_partial};
  return op(kIds[static_cast<std::size_t>(move)]);
}

}    // namespace

Graph lower_reshards(Graph graph, const Options&) {
  if (graph.mesh.atoms.empty()) return graph;
  std::map<Value, Value> by;    // a reshard that is no step at all: its operand takes its place
  for (const Segment segment : kSegments) {
    std::vector<Node> nodes = std::move(graph.nodes(segment)), out;
    for (Node& node : nodes) {
      for (Value& v : node.in)
        if (const auto found = by.find(v); found != by.end()) v = found->second;
      if (node.op != &op(OpId::reshard)) {
        out.push_back(std::move(node));
        continue;
      }
      const Type from = graph.type(node.in[0]), to = graph.type(node.out[0]);
      const auto steps = plan_reshard(from.placement, to.placement, from.shape, size_bytes(from.dtype), graph.mesh);
      if (steps.empty()) by[node.out[0]] = node.in[0];
      Value v = node.in[0];
      Placement at = from.placement;
      for (std::size_t i = 0; i < steps.size(); ++i) {
        const double bytes = sent_bytes(steps[i].move, steps[i].over, at, from.shape, size_bytes(from.dtype), graph.mesh);
        Node step = graph.make_node(op_of(steps[i].move), {v}, {},
                                    fmt::format("{}{}{}", i == 0 ? node.note + "; " : "", axes_of(graph.mesh, steps[i].over),
                                                bytes > 0 ? ", " + human_bytes(bytes) : ""));
        graph[step.out[0]].type.placement = steps[i].to;
        if (i + 1 == steps.size()) step.out[0] = node.out[0];    // its readers stay
        v = step.out[0];
        at = steps[i].to;
        out.push_back(std::move(step));
      }
    }
    graph.nodes(segment) = std::move(out);
  }
  return graph;
}

}    // namespace sheaf
