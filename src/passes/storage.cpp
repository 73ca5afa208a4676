#include "passes/storage.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "ops/pack_layout.h"
#include "passes/plan_memory.h"

namespace sheaf {

static std::size_t id(Value v) { return static_cast<std::size_t>(v.id); }

ViewLayout view_layout(const Graph& graph, const Node& node) {
  const bool cuts = node.op->name == "chunk";
  const Values& parts = cuts ? node.out : node.in;
  return {cuts ? node.in[0] : node.out[0], parts, cuts ? node.attrs.integer("index") : 0, graph.local_bytes(parts[0])};
}

// The parts are blocks of what a rank holds of the whole, in order.
static bool is_one_block(const Graph& graph, const Node& node) {
  return node.attrs.integer("s") == 1 || graph.local_type(view_layout(graph, node).whole).shape[0] == node.attrs.integer("b");
}

Storage::Storage(const Graph& graph, const ColumnMasks& columns)
    : graph_(graph),
      columns_(graph, columns),
      root_(graph.values.size()),
      shift_(graph.values.size(), 0),
      pitch_(graph.values.size(), 0),
      buffers_(graph.values.size()) {
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
  place_packs();
  place_views();
  place_columns();
  share_with_targets();
  share_in_place();
}

void Storage::place_packs() {
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
void Storage::place_views() {
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

void Storage::place_columns() {
  const auto is_free = [&](Value v) { return root_[id(v)] == id(v) && !buffers_[id(v)].persistent && !is_pack_.contains(id(v)); };
  const auto lay = [&](const Values& members, std::int64_t tokens) {
    if (!std::all_of(members.begin(), members.end(), is_free) ||
        std::any_of(members.begin(), members.end(), [&](Value v) { return is_dynamic(id(v)); }))
      return;
    const std::size_t first = id(members[0]);
    std::int64_t bytes = 0;    // of a token
    for (const Value v : members) {
      root_[id(v)] = first, shift_[id(v)] = bytes;
      bytes += buffers_[id(v)].bytes / tokens;
    }
    if (tokens > 1)
      for (const Value v : members) pitch_[id(v)] = bytes;
    buffers_[first].bytes = tokens * bytes;
    is_pack_[first] = true;
  };
  for (const Values& members : columns_.groups()) {
    const Shape& shape = graph_.local_type(members[0]).shape;
    lay(members, shape[0] * shape[1]);
  }
  for (const Values& members : columns_.stacks()) lay(members, 1);
}

// `rest` runs again and again: what comes from before it and is read in it lives to its end.
int Storage::last_use_in_time(std::size_t v) const {
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
void Storage::share_with_targets() {
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
bool Storage::works_in_place(const Node& producer, Value v, std::size_t resident, std::size_t target) const {
  if (!producer.op->in_place) return false;
  const auto o = static_cast<std::size_t>(std::find(producer.out.begin(), producer.out.end(), v) - producer.out.begin());
  return o < producer.in.size() && id(producer.in[o]) == resident && shift(resident) == shift(target) && root(resident) == root(target);
}

bool Storage::overlap(std::size_t a, std::size_t b) const {    // of the same buffer
  const auto bytes = [&](std::size_t v) {
    const Shape& shape = graph_.local_type({static_cast<int>(v)}).shape;
    const std::int64_t all = graph_.local_bytes({static_cast<int>(v)});
    return pitch_[v] > 0 ? all / (shape[0] * shape[1]) : all;
  };
  return shift(a) < shift(b) + bytes(b) && shift(b) < shift(a) + bytes(a);
}
// An op may write over an operand that lies beside others, too, if who reads the result can do with gaps.
bool Storage::takes_columns_of(std::size_t out, std::size_t in, int t) const {
  if (root_[out] != out || pitch_[in] == 0 || !columns_.may_have_gaps({static_cast<int>(out)}) || is_pack_.contains(out)) return false;
  if (graph_.local_bytes({static_cast<int>(out)}) != graph_.local_bytes({static_cast<int>(in)})) return false;
  for (std::size_t v = 0; v < root_.size(); ++v)
    if (root(v) == root(in) && overlap(v, in) && (defined_[v] > t || (!uses_[v].empty() && uses_[v].back() > t))) return false;
  return true;
}

void Storage::share_in_place() {
  for (int t = 0; t < static_cast<int>(events_.size()); ++t) {
    const Node& node = *events_[static_cast<std::size_t>(t)].node;
    if (!node.op->in_place) continue;
    for (std::size_t o = 0; o < node.out.size() && o < node.in.size(); ++o) {
      if (!node.in[o]) continue;
      const std::size_t out = id(node.out[o]), in = id(node.in[o]);
      if (is_dynamic(out) || is_dynamic(in)) continue;
      if (takes_columns_of(out, in, t) &&
          events_[static_cast<std::size_t>(defined_[in])].segment == events_[static_cast<std::size_t>(t)].segment) {
        root_[out] = in, pitch_[out] = pitch_[in];
        continue;
      }
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

int Storage::last_use(std::size_t buffer) {
  if (const auto found = last_use_.find(buffer); found != last_use_.end()) return found->second;
  int last = -1;
  for (const std::size_t v : residents_of_result(buffer)) {
    last = std::max(last, defined_[v]);
    if (!uses_[v].empty()) last = std::max(last, uses_[v].back());
  }
  return last_use_[buffer] = last;
}
// In-place chains are short; packs of results never share.
std::vector<std::size_t> Storage::residents_of_result(std::size_t buffer) const {
  std::vector<std::size_t> out = {buffer};
  for (std::size_t v = buffer + 1; v < root_.size(); ++v)
    if (root_[v] != v && root(v) == buffer) out.push_back(v);
  return out;
}

}    // namespace sheaf
