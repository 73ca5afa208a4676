// micro_batches: gives the step its M micro-batches and its accumulators their final form.
//
// On entry: one body (segment first) with `accumulate @acc, %v` nodes; inputs are [1, ...].
// On exit:  no `accumulate`. Inputs are [M, ...].
//   M = 1:  readers of @acc read %v; no accumulator is left.
//   M > 1:  first                          rest   (run M - 1 times)
//             ... %v ...                     ... %v' ...                    (a clone of the body)
//             set @acc, %v                   %a = add @acc, %v'
//                                            set @acc, %a
#include <map>

#include "ops/op_table.h"
#include "passes/pass.h"

namespace sheaf {
namespace {

void replace_reads(Graph& graph, const std::map<Value, Value>& by) {
  for (auto& nodes : graph.segments)
    for (Node& node : nodes)
      for (Value& v : node.in)
        if (const auto found = by.find(v); found != by.end()) v = found->second;
}

}    // namespace

Graph micro_batches(Graph graph, const Options& options) {
  const std::int64_t m = options.num_micro_batches;
  for (const Value v : graph.all(ValueKind::input)) graph[v].type.shape[0] = m;
  std::vector<Node> body = std::move(graph.nodes(Segment::first)), first, rest;
  std::map<Value, Value> forwarded, clone;
  const auto cloned = [&](const Values& values) {
    Values out;
    for (const Value v : values) {
      const auto found = clone.find(v);
      out.push_back(found == clone.end() ? v : found->second);
    }
    return out;
  };
  for (const Node& node : body) {
    if (node.op->name != "accumulate") {
      first.push_back(node);
      if (m == 1) continue;
      Node copy = graph.make_node(*node.op, cloned(node.in), node.attrs, node.note);
      for (std::size_t o = 0; o < node.out.size(); ++o) {
        clone[node.out[o]] = copy.out[o];
        graph[copy.out[o]].type.placement = graph.type(node.out[o]).placement;
      }
      rest.push_back(std::move(copy));
    } else if (m == 1) {
      forwarded[node.in[0]] = node.in[1];
    } else {
      first.push_back({&op(OpId::set), node.in, {}, {}, node.note});
      const Node sum = graph.make_node(op(OpId::add), cloned({node.in[0], node.in[1]}), {}, node.note);
      graph[sum.out[0]].type.placement = graph.type(node.in[0]).placement;
      rest.push_back(sum);
      rest.push_back({&op(OpId::set), {node.in[0], sum.out[0]}, {}, {}, node.note});
    }
  }
  graph.nodes(Segment::first) = std::move(first);
  graph.nodes(Segment::rest) = std::move(rest);
  if (!forwarded.empty()) {
    replace_reads(graph, forwarded);
    for (const auto& [carried, value] : forwarded) graph.undeclare(carried);
  }
  return graph;
}

}    // namespace sheaf
