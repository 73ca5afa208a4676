// dedup_rows: a token goes once to each rank that holds some of its experts, not once for each choice.
//
// On entry: L3. options.expert_plan: only `dedup` changes anything.
// On exit:  a dispatch that only an exchange_rows reads, and a combine of what an exchange_rows yields, are one node with it.
//
//   %2 = dispatch %0, %slot {k=8}
//   %3 = exchange_rows %2, %expert                       becomes      %3 = exchange_dispatch %0, %slot, %expert {k=8}
//
//   %5 = exchange_rows %4, %expert
//   %6 = combine %5, %slot {k=8}                         becomes      %6 = exchange_combine %4, %slot, %expert {k=8}
#include <map>

#include "ops/op_table.h"
#include "passes/pass.h"

namespace sheaf {

Graph dedup_rows(Graph graph, const Options& options) {
  if (options.expert_plan != "dedup") return graph;
  for (const Segment segment : kSegments) {
    std::vector<Node>& nodes = graph.nodes(segment);
    std::map<Value, int> readers;
    std::map<Value, const Node*> maker;
    for (const Node& node : nodes) {
      for (const Value v : node.in) ++readers[v];
      for (const Value v : node.out) maker[v] = &node;
    }
    const auto only_reader_of = [&](Value v, OpId id) -> const Node* {
      const auto made = maker.find(v);
      return made != maker.end() && made->second->op == &op(id) && readers[v] == 1 ? made->second : nullptr;
    };
    std::map<const Node*, Node> becomes;
    for (const Node& node : nodes) {
      if (node.op == &op(OpId::exchange_rows)) {
        if (const Node* d = only_reader_of(node.in[0], OpId::dispatch))
          becomes[&node] = {&op(OpId::exchange_dispatch), {d->in[0], d->in[1], node.in[1]}, node.out, d->attrs, node.note}, becomes[d] = {};
      } else if (node.op == &op(OpId::combine)) {
        if (const Node* e = only_reader_of(node.in[0], OpId::exchange_rows))
          becomes[&node] = {&op(OpId::exchange_combine), {e->in[0], node.in[1], e->in[1]}, node.out, node.attrs, node.note},
          becomes[e] = {};
      }
    }
    std::vector<Node> out;
    for (Node& node : nodes) {
      const auto found = becomes.find(&node);
      if (found == becomes.end())
        out.push_back(std::move(node));
      else if (found->second.op)
        out.push_back(std::move(found->second));
    }
    nodes = std::move(out);
  }
  return graph;
}

}    // namespace sheaf
