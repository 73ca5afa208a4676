// Storage is decided in four steps, each on *buffers* (sets of values that share bytes):
//   1 packs      members lie one after the other in the pack's buffer, chunks in the tensor that they are of
//   2 set        the producer of a value writes into the target of its `set`
//   3 in place   an op writes over an operand that nothing reads any more
//   4 offsets    persistent buffers in order; arena buffers by size, largest first, each at the lowest free offset in its lifetime
#include "passes/plan_memory.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "base/error.h"
#include "ops/pack_layout.h"

namespace sheaf {
namespace {

constexpr std::int64_t kAlign = 256;    // bytes; what vector loads of any device want
std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// A step in time: the position of a node over all segments.
struct Event {
  const Node* node;
  Segment segment;
};

struct Buffer {
  std::int64_t bytes = 0;
  bool persistent = false;
  int begin = -1, end = -1;    // first definition, last use, in time; persistent: always
};

// A node that is a view: its parts are of one size and lie one after the other in the whole, the first of them `first` parts from its
// start.
struct ViewLayout {
  Value whole;
  const Values& parts;
  std::int64_t first, part_bytes;
  std::int64_t offset(std::size_t part) const { return (first + static_cast<std::int64_t>(part)) * part_bytes; }
};
ViewLayout view_layout(const Graph& graph, const Node& node) {
  const bool cuts = node.op->name == "chunk";
  const Values& parts = cuts ? node.out : node.in;
  return {cuts ? node.in[0] : node.out[0], parts, cuts ? node.attrs.integer("index") : 0, graph.local_bytes(parts[0])};
}

// The parts are blocks of what a rank holds of the whole, in order.
bool is_one_block(const Graph& graph, const Node& node) {
  return node.attrs.integer("s") == 1 || graph.local_type(view_layout(graph, node).whole).shape[0] == node.attrs.integer("b");
}

class Planner {
 public:
  Planner(const Graph& graph) : graph_(graph), root_(graph.values.size()), shift_(graph.values.size(), 0), buffers_(graph.values.size()) {
    std::iota(root_.begin(), root_.end(), 0);
    for (const Segment s : kSegments)
      for (const Node& node : graph.nodes(s)) events_.push_back({&node, s});
    for (std::size_t i = 0; i < graph.values.size(); ++i) {
      buffers_[i].bytes = is_dynamic(i) ? 0 : graph.local_bytes({static_cast<int>(i)});
      buffers_[i].persistent = graph.values[i].kind != ValueKind::result;
    }
    defined_.assign(graph.values.size(), -1);
    uses_.resize(graph.values.size());
    for (int t = 0; t < static_cast<int>(events_.size()); ++t) {
      for (const Value v : events_[static_cast<std::size_t>(t)].node->in)
        if (v) uses_[id(v)].push_back(t);
      for (const Value v : events_[static_cast<std::size_t>(t)].node->out) defined_[id(v)] = t;
    }
    wait_.assign(events_.size(), -1);
    int begin = 0;
    for (const Segment s : kSegments) {
      const std::vector<int> at = waited_at(graph.nodes(s));
      for (std::size_t n = 0; n < at.size(); ++n)
        if (at[n] >= 0) wait_[static_cast<std::size_t>(begin) + n] = begin + std::min(at[n], static_cast<int>(at.size()) - 1);
      begin += static_cast<int>(at.size());
    }
    for (std::size_t t = 0; t < events_.size(); ++t)
      if (wait_[t] >= 0)
        for (const Value v : events_[t].node->in)
          if (graph.values[id(v)].kind == ValueKind::result) {
            auto& uses = uses_[id(v)];
            uses.insert(std::upper_bound(uses.begin(), uses.end(), wait_[t]), wait_[t]);
          }
  }

  MemoryPlan run(const std::array<std::vector<std::int64_t>, kSegments.size()>& scratch, const SharedStorage& shared) {
    place_packs();
    place_views();
    share_with_targets();
    share_in_place();
    MemoryPlan plan;
    plan.places.resize(graph_.values.size());
    place_persistent(plan, shared);
    place_arena(plan, scratch);
    return plan;
  }

 private:
  static std::size_t id(Value v) { return static_cast<std::size_t>(v.id); }
  // Has no place in the plan: runtime/dynamic_rows.h.
  bool is_dynamic(std::size_t v) const { return graph_.has_dynamic_rows({static_cast<int>(v)}); }
  std::size_t root(std::size_t v) const { return root_[v] == v ? v : root(root_[v]); }
  std::int64_t shift(std::size_t v) const { return root_[v] == v ? 0 : shift_[v] + shift(root_[v]); }

  void place_packs() {
    for (const Event& event : events_) {
      if (event.node->op->name != "pack") continue;
      const std::size_t pack = id(event.node->out[0]);
      const bool persistent = buffers_[id(event.node->in[0])].persistent;
      std::int64_t offset = 0;
      for (const Value member : event.node->in) {
        const std::size_t m = id(member);
        SHEAF_CHECK(root_[m] == m && buffers_[m].persistent == persistent, "plan_memory: {} cannot be stored in a pack",
                    name_of(graph_, member));
        root_[m] = pack, shift_[m] = offset;
        offset += packed_extent(graph_.local_elements(member)) * size_bytes(graph_.type(member).dtype);
      }
      buffers_[pack].persistent = persistent;
      is_pack_[pack] = true;
    }
  }

  // A chunk lies in its tensor, chunks side by side in the tensor that they make: where they are one block of what a rank holds.
  void place_views() {
    for (const Event& event : events_) {
      if (!event.node->op->view || !is_one_block(graph_, *event.node)) continue;
      const ViewLayout view = view_layout(graph_, *event.node);
      if (is_dynamic(id(view.whole))) continue;
      const auto is_free = [&](Value part) { return root_[id(part)] == id(part) && !buffers_[id(part)].persistent; };
      if (!std::all_of(view.parts.begin(), view.parts.end(), is_free)) continue;
      for (std::size_t i = 0; i < view.parts.size(); ++i)
        root_[id(view.parts[i])] = id(view.whole), shift_[id(view.parts[i])] = view.offset(i);
      is_pack_[id(view.whole)] |= view.whole == event.node->out[0];
    }
  }

  // `rest` runs again and again: what comes from before it and is read in it lives to its end.
  int last_use_in_time(std::size_t v) const {
    if (uses_[v].empty()) return defined_[v];
    int last = uses_[v].back();
    const auto segment_at = [&](int t) { return events_[static_cast<std::size_t>(t)].segment; };
    const bool from_before = segment_at(defined_[v]) < Segment::rest;
    if (from_before && std::any_of(uses_[v].begin(), uses_[v].end(), [&](int t) { return segment_at(t) == Segment::rest; }))
      while (last + 1 < static_cast<int>(events_.size()) && segment_at(last + 1) <= Segment::rest) ++last;
    return last;
  }

  // `set t, v`: may v's producer write into t? Only if every read of t's bytes in its segment is done by then; the producer itself may read
  // them if it works in place at that operand. Later segments and later steps read t, that is, v.
  void share_with_targets() {
    std::map<std::size_t, std::vector<std::size_t>> lying_in;
    for (std::size_t v = 0; v < root_.size(); ++v) lying_in[root(v)].push_back(v);
    for (int t = 0; t < static_cast<int>(events_.size()); ++t) {
      const Event& event = events_[static_cast<std::size_t>(t)];
      if (event.node->op->name != "set") continue;
      const std::size_t target = id(event.node->in[0]), value = id(event.node->in[1]);
      const int def = defined_[value];
      if (def < 0 || root_[value] != value || buffers_[value].persistent || is_pack_.contains(value)) continue;
      if (graph_.values[target].type.dtype != graph_.values[value].type.dtype ||
          events_[static_cast<std::size_t>(def)].segment != event.segment)
        continue;
      const std::size_t buffer = root(target);
      if (!buffers_[buffer].persistent) continue;
      const Node& producer = *events_[static_cast<std::size_t>(def)].node;
      bool free = producer.op->kernel != nullptr;
      for (const std::size_t resident : lying_in[buffer]) {
        if (shift(resident) + buffers_[resident].bytes <= shift(target) || shift(target) + buffers_[target].bytes <= shift(resident))
          continue;
        for (const int use : uses_[resident]) {
          const Event& reader = events_[static_cast<std::size_t>(use)];
          // Behind the `set` it is v that is read.
          if (reader.segment != event.segment || use < def || use >= t || reader.node->op->name == "pack") continue;
          free &= use == def && works_in_place(producer, Value{static_cast<int>(value)}, resident, target);
        }
      }
      if (!free) continue;
      root_[value] = target, shift_[value] = 0;
      lying_in[buffer].push_back(value);
    }
  }

  // Output v of `producer` may lie where operand `resident` lies, at the same offset.
  bool works_in_place(const Node& producer, Value v, std::size_t resident, std::size_t target) const {
    if (!producer.op->in_place) return false;
    const auto o = static_cast<std::size_t>(std::find(producer.out.begin(), producer.out.end(), v) - producer.out.begin());
    return o < producer.in.size() && id(producer.in[o]) == resident && shift(resident) == shift(target) && root(resident) == root(target);
  }

  void share_in_place() {
    for (int t = 0; t < static_cast<int>(events_.size()); ++t) {
      const Node& node = *events_[static_cast<std::size_t>(t)].node;
      if (!node.op->in_place) continue;
      for (std::size_t o = 0; o < node.out.size() && o < node.in.size(); ++o) {
        if (!node.in[o]) continue;
        const std::size_t out = id(node.out[o]), in = id(node.in[o]);
        if (is_dynamic(out) || is_dynamic(in)) continue;
        if (root_[out] != out || buffers_[root(in)].persistent || is_pack_.contains(root(in)) || is_pack_.contains(out)) continue;
        if (buffers_[in].bytes != buffers_[out].bytes || graph_.values[in].type.dtype != graph_.values[out].type.dtype) continue;
        if (std::count(node.in.begin(), node.in.end(), node.in[o]) > 1) continue;
        // What an earlier segment defined, a second run of this body would read again.
        const Segment here = events_[static_cast<std::size_t>(t)].segment;
        if (here != Segment::epilogue && events_[static_cast<std::size_t>(defined_[root(in)])].segment != here) continue;
        if (last_use(root(in)) > t) continue;
        root_[out] = in;
        last_use_.erase(root(in));
      }
    }
  }

  int last_use(std::size_t buffer) {
    if (const auto found = last_use_.find(buffer); found != last_use_.end()) return found->second;
    int last = -1;
    for (const std::size_t v : residents_of_result(buffer)) {
      last = std::max(last, defined_[v]);
      if (!uses_[v].empty()) last = std::max(last, uses_[v].back());
    }
    return last_use_[buffer] = last;
  }
  // In-place chains are short; packs of results never share.
  std::vector<std::size_t> residents_of_result(std::size_t buffer) {
    std::vector<std::size_t> out = {buffer};
    for (std::size_t v = buffer + 1; v < root_.size(); ++v)
      if (root_[v] != v && root(v) == buffer) out.push_back(v);
    return out;
  }

  void place_persistent(MemoryPlan& plan, const SharedStorage& shared) {
    std::int64_t offset = 0;
    std::vector<bool> placed(root_.size());
    for (const auto& [v, at] : shared) {
      SHEAF_CHECK(root(id(v)) == id(v), "plan_memory: {} is shared and part of a pack", name_of(graph_, v));
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
    for (std::size_t v = 0; v < root_.size(); ++v)
      if (graph_.values[v].kind == ValueKind::argument) put(root(v), kSlotBytes);
    for (std::size_t v = 0; v < root_.size(); ++v)
      if (is_metric(graph_.values[v])) put(root(v), kSlotBytes);
    for (std::size_t v = 0; v < root_.size(); ++v) {
      const std::size_t buffer = root(v);
      if (!buffers_[buffer].persistent || graph_.values[v].kind == ValueKind::gone || plan.places[buffer].block == Block::shared) continue;
      offset = aligned(offset);
      put(buffer, buffers_[buffer].bytes);
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
    for (std::size_t v = 0; v < root_.size(); ++v)
      if (buffers_[root(v)].persistent && graph_.values[v].kind != ValueKind::gone)
        plan.places[v] = {plan.places[root(v)].block, plan.places[root(v)].offset + shift(v)};
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
    for (std::size_t v = 0; v < root_.size(); ++v) {
      const std::size_t buffer = root(v);
      if (graph_.values[v].kind != ValueKind::result || buffers_[buffer].persistent || defined_[v] < 0 || is_dynamic(v)) continue;
      const auto [entry, fresh] = item_of.emplace(buffer, items.size());
      if (fresh) items.push_back({aligned(buffers_[buffer].bytes), defined_[v], defined_[v], buffer});
      Item& item = items[entry->second];
      item.begin = std::min(item.begin, defined_[v]);
      item.end = std::max({item.end, defined_[v], last_use_in_time(v)});
    }
    const std::size_t num_values = items.size();
    int t = 0;
    for (const Segment s : kSegments)
      for (std::size_t n = 0; n < graph_.nodes(s).size(); ++n, ++t)
        if (const std::int64_t bytes = scratch[static_cast<std::size_t>(s)].empty() ? 0 : scratch[static_cast<std::size_t>(s)][n])
          items.push_back({aligned(bytes), t, std::max(t, wait_[static_cast<std::size_t>(t)]), static_cast<std::size_t>(t)});
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
    for (std::size_t v = 0; v < root_.size(); ++v)
      if (const auto found = item_of.find(root(v)); found != item_of.end() && !buffers_[root(v)].persistent)
        plan.places[v] = {Block::arena, items[found->second].offset + shift(v)};
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
  std::vector<Event> events_;
  std::vector<std::size_t> root_;
  std::vector<std::int64_t> shift_;    // bytes from the start of the parent
  std::vector<Buffer> buffers_;
  std::vector<int> defined_;
  std::vector<std::vector<int>> uses_;    // ascending; of a collective's operands also when it is waited for
  std::vector<int> wait_;                 // by event: when it is waited for; -1: no collective
  std::map<std::size_t, bool> is_pack_;
  std::map<std::size_t, int> last_use_;
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
                       const SharedStorage& shared) {
  return Planner(graph).run(scratch, shared);
}

}    // namespace sheaf
