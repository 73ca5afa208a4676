#include "passes/columns.h"

#include <algorithm>
#include <functional>
#include <set>

#include "ops/op_table.h"

namespace sheaf {

static constexpr std::int64_t kAccess = 16;    // bytes that kernels read at once

Columns::Columns(const Graph& graph, const ColumnMasks& masks) : graph_(graph), masks_(masks), may_(graph.values.size()) {
  for (const Segment s : kSegments)
    for (std::size_t n = 0; n < masks[static_cast<std::size_t>(s)].size(); ++n) {
      const Node& node = graph.nodes(s)[n];
      for (std::size_t o = 0; o < node.out.size() && o < 32; ++o) {
        const Type type = graph.local_type(node.out[o]);
        if (!(masks[static_cast<std::size_t>(s)][n].out >> o & 1) || type.shape.size() < 3 || type.routed > 0) continue;
        const std::int64_t tokens = type.shape[0] * type.shape[1];
        may_[static_cast<std::size_t>(node.out[o].id)] = tokens > 0 && type.bytes() % (tokens * kAccess) == 0;
      }
    }
  for (const Segment s : kSegments)
    for (std::size_t n = 0; n < graph.nodes(s).size(); ++n) {
      const Node& node = graph.nodes(s)[n];
      const auto& mask = masks[static_cast<std::size_t>(s)];
      for (std::size_t i = 0; i < node.in.size(); ++i)
        if (node.in[i] && (mask.empty() || i >= 32 || !(mask[n].in >> i & 1))) may_[static_cast<std::size_t>(node.in[i].id)] = false;
    }
}

// What nodes that stand for several products have side by side, `of` a node: where all of it fits and nothing of it is in a group before.
static std::vector<Values> disjoint(const Graph& graph, const std::function<Values(const Node&, const ColumnMask&)>& of,
                                    const std::function<bool(Value first, Value v)>& fits, const ColumnMasks& masks) {
  std::vector<Values> groups;
  std::set<Value> taken;
  for (const Segment s : kSegments)
    for (std::size_t n = 0; n < masks[static_cast<std::size_t>(s)].size(); ++n) {
      const Node& node = graph.nodes(s)[n];
      if (!node.op->joined) continue;
      const Values members = of(node, masks[static_cast<std::size_t>(s)][n]);
      std::set<Value> each;
      const auto may = [&](Value v) { return fits(members[0], v) && !taken.contains(v) && each.insert(v).second; };
      if (members.empty() || !std::all_of(members.begin(), members.end(), may)) continue;
      taken.insert(members.begin(), members.end());
      groups.push_back(members);
    }
  return groups;
}
// Of the operands of einsum_sum, two by two.
static Values every_other(const Values& in, std::size_t first) {
  Values out;
  for (std::size_t i = first; i < in.size(); i += 2) out.push_back(in[i]);
  return out;
}

std::vector<Values> Columns::groups() const {
  const auto of = [](const Node& node, const ColumnMask&) {
    return node.op == &op(OpId::einsum_each) ? node.out : every_other(node.in, 0);
  };
  const auto fits = [&](Value first, Value v) {
    const Shape &shape = graph_.local_type(v).shape, &of_first = graph_.local_type(first).shape;
    return may_have_gaps(v) && graph_.type(v).dtype == graph_.type(first).dtype && shape[0] == of_first[0] && shape[1] == of_first[1];
  };
  return disjoint(graph_, of, fits, masks_);
}

std::vector<Values> Columns::stacks() const {
  const auto of = [](const Node& node, const ColumnMask& mask) {
    if (mask.in == 0) return Values{};    // its kernel runs them one by one
    return node.op == &op(OpId::einsum_each) ? Values(node.in.begin() + 1, node.in.end()) : every_other(node.in, 1);
  };
  const auto fits = [&](Value, Value v) { return graph_[v].kind == ValueKind::result && graph_.local_bytes(v) % kAccess == 0; };
  return disjoint(graph_, of, fits, masks_);
}

}    // namespace sheaf
