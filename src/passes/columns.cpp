#include "passes/columns.h"

#include <algorithm>
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

std::vector<Values> Columns::groups() const {
  std::vector<Values> groups;
  std::set<Value> taken;
  for (const Segment s : kSegments)
    for (const Node& node : graph_.nodes(s)) {
      Values members;
      if (node.op == &op(OpId::einsum_each)) members = node.out;
      if (node.op == &op(OpId::einsum_sum))
        for (std::size_t i = 0; i < node.in.size(); i += 2) members.push_back(node.in[i]);
      const auto fits = [&](Value v) {
        const Shape &shape = graph_.local_type(v).shape, &first = graph_.local_type(members[0]).shape;
        return may_have_gaps(v) && graph_.type(v).dtype == graph_.type(members[0]).dtype && shape[0] == first[0] && shape[1] == first[1];
      };
      if (members.empty() || !std::all_of(members.begin(), members.end(), fits)) continue;
      std::set<Value> more = taken;
      more.insert(members.begin(), members.end());
      if (more.size() < taken.size() + members.size()) continue;
      taken = std::move(more);
      groups.push_back(std::move(members));
    }
  return groups;
}

std::vector<Values> Columns::stacks() const {
  std::vector<Values> stacks;
  std::set<Value> taken;
  for (const Segment s : kSegments)
    for (std::size_t n = 0; n < masks_[static_cast<std::size_t>(s)].size(); ++n) {
      const Node& node = graph_.nodes(s)[n];
      if (masks_[static_cast<std::size_t>(s)][n].in == 0) continue;    // its kernel runs them one by one
      Values members;
      if (node.op == &op(OpId::einsum_each)) members = {node.in.begin() + 1, node.in.end()};
      if (node.op == &op(OpId::einsum_sum))
        for (std::size_t i = 1; i < node.in.size(); i += 2) members.push_back(node.in[i]);
      const auto is_free = [&](Value v) {
        return graph_[v].kind == ValueKind::result && !taken.contains(v) && graph_.local_bytes(v) % kAccess == 0;
      };
      if (members.empty() || !std::all_of(members.begin(), members.end(), is_free)) continue;
      const std::set<Value> each(members.begin(), members.end());
      if (each.size() < members.size()) continue;
      taken.insert(members.begin(), members.end());
      stacks.push_back(std::move(members));
    }
  return stacks;
}

}    // namespace sheaf
