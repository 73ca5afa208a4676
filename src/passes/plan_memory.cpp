// Storage is decided in four steps: which values share bytes (storage.h), then
//   4 offsets    persistent buffers in order; arena buffers by size, largest first, each at the lowest free offset in its lifetime
#include "passes/plan_memory.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "base/error.h"
#include "passes/storage.h"

namespace sheaf {
namespace {

constexpr std::int64_t kAlign = 256;    // bytes; what vector loads of any device want
std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

class Planner {
 public:
  Planner(const Graph& graph, const ColumnMasks& columns) : graph_(graph), storage_(graph, columns) {}

  MemoryPlan run(const std::array<std::vector<std::int64_t>, kSegments.size()>& scratch, const SharedStorage& shared) {
    MemoryPlan plan;
    plan.places.resize(graph_.values.size());
    place_persistent(plan, shared);
    place_arena(plan, scratch);
    return plan;
  }

 private:
  static std::size_t id(Value v) { return static_cast<std::size_t>(v.id); }

  void place_persistent(MemoryPlan& plan, const SharedStorage& shared) {
    std::int64_t offset = 0;
    std::vector<bool> placed(graph_.values.size());
    for (const auto& [v, at] : shared) {
      SHEAF_CHECK(storage_.root(id(v)) == id(v), "plan_memory: {} is shared and part of a pack", name_of(graph_, v));
      placed[id(v)] = true;
      plan.places[id(v)] = {Block::shared, at};
    }
    const auto put = [&](std::size_t buffer, std::int64_t bytes) {
      if (placed[buffer]) return;
      placed[buffer] = true;
      plan.places[buffer] = {Block::persistent, offset};
      offset += bytes;
    };
    const auto is_metric = [&](const ValueInfo& info) { return info.kind == ValueKind::state && info.attrs.has("metric"); };
    for (std::size_t v = 0; v < graph_.values.size(); ++v)
      if (graph_.values[v].kind == ValueKind::argument) put(storage_.root(v), kSlotBytes);
    for (std::size_t v = 0; v < graph_.values.size(); ++v)
      if (is_metric(graph_.values[v])) put(storage_.root(v), kSlotBytes);
    for (std::size_t v = 0; v < graph_.values.size(); ++v) {
      const std::size_t buffer = storage_.root(v);
      if (!storage_.is_persistent(buffer) || graph_.values[v].kind == ValueKind::gone || plan.places[buffer].block == Block::shared)
        continue;
      offset = aligned(offset);
      put(buffer, storage_.bytes(buffer));
      const ValueInfo& info = graph_.values[v];
      if (info.kind == ValueKind::result) continue;
      const std::int64_t bytes = graph_.local_bytes({static_cast<int>(v)});
      if (info.kind == ValueKind::carried)
        plan.held.gradients += bytes;
      else if (info.kind == ValueKind::state && (info.name.ends_with(".m") || info.name.ends_with(".v")))
        plan.held.optimizer += bytes;
      else if (info.kind == ValueKind::state && !is_metric(info))
        plan.held.parameters += bytes;
      else
        plan.held.other += bytes;
    }
    plan.persistent_bytes = aligned(offset);
    for (std::size_t v = 0; v < graph_.values.size(); ++v)
      if (storage_.is_persistent(storage_.root(v)) && graph_.values[v].kind != ValueKind::gone)
        plan.places[v] = {plan.places[storage_.root(v)].block, plan.places[storage_.root(v)].offset + storage_.shift(v), 0};
  }

  void place_arena(MemoryPlan& plan, const std::array<std::vector<std::int64_t>, kSegments.size()>& scratch) {
    struct Item {
      std::int64_t bytes;
      int begin, end;
      std::size_t buffer;    // or a node's scratch: kScratch + time
      std::int64_t offset = 0;
    };
    std::vector<Item> items;
    std::map<std::size_t, std::size_t> item_of;
    for (std::size_t v = 0; v < graph_.values.size(); ++v) {
      const std::size_t buffer = storage_.root(v);
      if (graph_.values[v].kind != ValueKind::result || storage_.is_persistent(buffer) || storage_.defined(v) < 0 || storage_.is_dynamic(v))
        continue;
      const auto [entry, fresh] = item_of.emplace(buffer, items.size());
      if (fresh) items.push_back({aligned(storage_.bytes(buffer)), storage_.defined(v), storage_.defined(v), buffer});
      Item& item = items[entry->second];
      item.begin = std::min(item.begin, storage_.defined(v));
      item.end = std::max({item.end, storage_.defined(v), storage_.last_use_in_time(v)});
    }
    const std::size_t num_values = items.size();
    int t = 0;
    for (const Segment s : kSegments)
      for (std::size_t n = 0; n < graph_.nodes(s).size(); ++n, ++t)
        if (const std::int64_t bytes = scratch[static_cast<std::size_t>(s)].empty() ? 0 : scratch[static_cast<std::size_t>(s)][n])
          items.push_back({aligned(bytes), t, std::max(t, storage_.waited_for(static_cast<std::size_t>(t))), static_cast<std::size_t>(t)});
    std::vector<std::size_t> order(items.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return items[a].bytes > items[b].bytes; });
    std::vector<std::size_t> placed;    // by offset
    for (const std::size_t i : order) {
      Item& item = items[i];
      std::int64_t offset = 0;
      for (const std::size_t p : placed) {
        const Item& other = items[p];
        if (other.end < item.begin || item.end < other.begin) continue;
        if (offset + item.bytes <= other.offset) break;
        offset = std::max(offset, other.offset + other.bytes);
      }
      item.offset = offset;
      placed.insert(
          std::upper_bound(placed.begin(), placed.end(), offset, [&](std::int64_t o, std::size_t p) { return o < items[p].offset; }), i);
      plan.arena_bytes = std::max(plan.arena_bytes, offset + item.bytes);
    }
    for (std::size_t v = 0; v < graph_.values.size(); ++v)
      if (const auto found = item_of.find(storage_.root(v)); found != item_of.end() && !storage_.is_persistent(storage_.root(v)))
        plan.places[v] = {Block::arena, items[found->second].offset + storage_.shift(v), storage_.pitch(v)};
    for (const Segment s : kSegments) plan.nodes[static_cast<std::size_t>(s)].resize(graph_.nodes(s).size());
    std::vector<NodeMemory*> by_time;
    for (auto& list : plan.nodes)
      for (NodeMemory& node : list) by_time.push_back(&node);
    for (std::size_t i = num_values; i < items.size(); ++i) *by_time[items[i].buffer] = {items[i].bytes, items[i].offset};
    for (std::size_t i = 0; i < items.size(); ++i)
      plan.arena.push_back({i < num_values ? Value{static_cast<int>(items[i].buffer)} : Value{}, items[i].offset, items[i].bytes,
                            items[i].begin, items[i].end});
  }

  const Graph& graph_;
  const Storage storage_;
};

}    // namespace

bool is_stored(const Graph& graph, const MemoryPlan& plan, const Node& node) {
  if (node.op->name == "pack") return true;
  if (!node.op->view) return false;
  const ViewLayout view = view_layout(graph, node);
  const auto place = [&](Value v) { return plan.places[static_cast<std::size_t>(v.id)]; };
  for (std::size_t i = 0; i < view.parts.size(); ++i)
    if (place(view.parts[i]).block != place(view.whole).block || place(view.parts[i]).offset != place(view.whole).offset + view.offset(i))
      return false;
  return true;
}

bool communicates(const Node& node) { return is_move(*node.op) && node.op->name != "slice" && node.op->name != "to_partial"; }

std::vector<int> waited_at(const std::vector<Node>& nodes) {
  constexpr std::size_t kReductionsUnderWay = 2;
  std::vector<std::size_t> reductions;
  std::vector<int> at(nodes.size(), -1);
  std::map<Value, std::size_t> under_way;    // results of collectives nobody has waited for
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    for (const Value v : nodes[n].in) {
      const auto found = under_way.find(v);
      if (found == under_way.end()) continue;
      at[found->second] = std::min(at[found->second], static_cast<int>(n));
    }
    if (!communicates(nodes[n])) continue;
    at[n] = static_cast<int>(nodes.size());
    for (const Value v : nodes[n].out) under_way[v] = n;
    if (nodes[n].op->name != "reduce_scatter" && nodes[n].op->name != "all_reduce") continue;
    reductions.push_back(n);
    if (reductions.size() <= kReductionsUnderWay) continue;
    int& oldest = at[reductions[reductions.size() - 1 - kReductionsUnderWay]];
    oldest = std::min(oldest, static_cast<int>(n));
  }
  return at;
}

MemoryPlan plan_memory(const Graph& graph, const std::array<std::vector<std::int64_t>, kSegments.size()>& scratch,
                       const SharedStorage& shared, const ColumnMasks& columns) {
  return Planner(graph, columns).run(scratch, shared);
}

std::int64_t extent_of(const Graph& graph, const Place& place, Value v) {
  const std::int64_t bytes = graph.local_bytes(v);
  if (place.pitch == 0) return bytes;
  const Shape& shape = graph.local_type(v).shape;
  const std::int64_t tokens = shape[0] * shape[1];
  return (tokens - 1) * place.pitch + bytes / tokens;
}

}    // namespace sheaf
