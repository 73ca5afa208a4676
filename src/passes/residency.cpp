// residency: how long a gathered state lives.
//
// On entry: placed (L2). A reshard of a state in the body has readers in the forward, the backward, or both; the forward ends with what
//           accumulates @loss_sum.
// On exit:  the backward reads gathers of its own, each in front of its first reader: ZeRO-3 gathers once in the forward and once in the
//           backward of each micro-batch, and what is gathered is free after its last use in either.
//
//   %1 = reshard @w                            %1 = reshard @w
//   %2 = einsum %0, %1                         %2 = einsum %0, %1
//   accumulate @loss_sum, %2       becomes     accumulate @loss_sum, %2
//   %3 = einsum %4, %1                         %5 = reshard @w
//                                              %3 = einsum %4, %5
#include <algorithm>
#include <map>

#include "ops/op_table.h"
#include "passes/pass.h"

namespace sheaf {

Graph residency(Graph graph, const Options&) {
  if (graph.mesh.atoms.empty()) return graph;
  std::vector<Node> body = std::move(graph.nodes(Segment::first)), out;
  const Value loss = graph.find("loss_sum");
  const auto forward_end =
      std::find_if(body.begin(), body.end(), [&](const Node& node) { return node.op->name == "accumulate" && node.in[0] == loss; });
  std::map<Value, Node> gathers;    // of states in the forward, by output
  std::map<Value, Value> again;     // their counterparts in the backward
  for (auto node = body.begin(); node != body.end(); ++node) {
    if (node > forward_end)
      for (Value& v : node->in) {
        const auto gather = gathers.find(v);
        if (gather == gathers.end()) continue;
        const auto [entry, fresh] = again.emplace(v, Value{});
        if (fresh) {
          Node copy = graph.make_node(*gather->second.op, gather->second.in, gather->second.attrs, gather->second.note);
          graph[copy.out[0]].type.placement = graph.type(v).placement;
          entry->second = copy.out[0];
          out.push_back(std::move(copy));
        }
        v = entry->second;
      }
    if (node < forward_end && node->op == &op(OpId::reshard) && graph[node->in[0]].kind == ValueKind::state)
      gathers.emplace(node->out[0], *node);
    out.push_back(*node);
  }
  graph.nodes(Segment::first) = std::move(out);
  return graph;
}

}    // namespace sheaf
