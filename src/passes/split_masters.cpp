// split_masters: a copy in bf16 beside an fp32 master says the upper half of it twice. The copy becomes that half, the master what the half
// leaves out (base/dtype.h): two bytes a parameter less, and no pass over memory that casts.
//
//   %1, %2, %3 = adamw @w, @w.m, @w.v, %g, ..                      %4, %1, %2, %3 = adamw_split @w.c, @w, @w.m, @w.v, %g, ..
//   set @w, %1                                          becomes    set @w, %1          (i16)
//   %4 = cast @w                                                   set @w.c, %4
//   set @w.c, %4
//
// On entry: lower_reshards is done: where a collective stands between master and copy there is one.
// On exit:  no fp32 state that its adamw and the cast for its copy alone read has a copy in bf16 that lies as it does. A split master is
//           i16 and has the attribute high=w.c; its name, its placement and its other attributes are as before. Updates of split masters
//           stand before the others.
#include <algorithm>
#include <map>
#include <set>

#include "ops/op_table.h"
#include "passes/pass.h"

namespace sheaf {

Graph split_masters(Graph graph, const Options& options) {
  if (!options.split_masters) return graph;
  auto& nodes = graph.nodes(Segment::epilogue);
  std::map<Value, int> uses;
  for (const Segment s : kSegments)
    for (const Node& node : graph.nodes(s))
      for (const Value v : node.in) ++uses[v];
  std::map<Value, Value> value_of, target_of, cast_of;    // of a state that is set, of the value; of a state behind its `set`
  for (const Node& node : nodes) {
    if (node.op == &op(OpId::set)) value_of[node.in[0]] = node.in[1], target_of[node.in[1]] = node.in[0];
    if (node.op == &op(OpId::cast) && value_of.contains(node.in[0])) cast_of[node.in[0]] = node.out[0];
  }
  std::set<Value> made;    // by an update, no longer by a cast
  for (Node& node : nodes) {
    if (node.op != &op(OpId::adamw) || !cast_of.contains(node.in[0])) continue;
    const Value w = node.in[0], low = node.out[0], high = cast_of.at(w);
    constexpr int kUsesOfMaster = 3;    // adamw, set, cast
    if (uses[w] != kUsesOfMaster || uses[low] != 1 || uses[high] != 1 || value_of.at(w) != low || !target_of.contains(high)) continue;
    const Value copy = target_of.at(high);
    if (graph.type(w).dtype != DType::fp32 || graph.type(copy).dtype != DType::bf16) continue;
    if (!same(graph.type(w).placement, graph.type(copy).placement)) continue;
    graph[w].type.dtype = graph[low].type.dtype = DType::i16;
    graph[w].attrs.set("high", graph[copy].name);
    node.op = &op(OpId::adamw_split);
    node.in.insert(node.in.begin(), copy);
    node.out.insert(node.out.begin(), high);
    made.insert(high);
  }
  // The two kinds of updates in turn would be no runs for flatten; no update reads what another makes.
  const auto is_split = [](const Node& node) { return node.op == &op(OpId::adamw_split); };
  const auto is_update = [&](const Node& node) { return is_split(node) || node.op == &op(OpId::adamw); };
  for (auto begin = nodes.begin(); begin != nodes.end();) {
    begin = std::find_if(begin, nodes.end(), is_update);
    const auto end = std::find_if_not(begin, nodes.end(), is_update);
    std::stable_partition(begin, end, is_split);
    begin = end;
  }
  std::erase_if(nodes, [&](const Node& node) { return node.op == &op(OpId::cast) && made.contains(node.out[0]); });
  return graph;
}

}    // namespace sheaf
