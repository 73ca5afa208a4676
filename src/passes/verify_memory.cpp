// L5, independent of how the plan was made: liveness is computed afresh, and every overlap needs a reason.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "passes/plan_memory.h"

namespace sheaf {
namespace {

struct Live {
  Value v;
  std::int64_t begin, end;    // bytes
  int from, to;               // time
  std::int64_t pitch = 0;
};

// Of columns of one matrix: within a row.
bool share_bytes(const Live& a, const Live& b) {
  if (a.pitch == 0 || a.pitch != b.pitch || std::abs(a.begin - b.begin) >= a.pitch) return a.begin < b.end && b.begin < a.end;
  const auto width = [](const Live& l) { return (l.end - l.begin - 1) % l.pitch + 1; };
  return a.begin < b.begin + width(b) && b.begin < a.begin + width(a);
}

// Packs overlap their members, chunks what they are of; an output of an in-place op may overlap the operand it takes the place of.
bool may_overlap(const Live& older, const Live& newer, const std::vector<const Node*>& at) {
  const Node& maker = *at[static_cast<std::size_t>(newer.from)];
  if (maker.op->name == "pack" || maker.op->view) return std::find(maker.in.begin(), maker.in.end(), older.v) != maker.in.end();
  if (!maker.op->in_place || older.to > newer.from) return false;
  for (std::size_t o = 0; o < maker.out.size() && o < maker.in.size(); ++o)
    if (maker.out[o] == newer.v && maker.in[o] == older.v) return true;
  return false;
}

}    // namespace

void verify_memory(const Graph& graph, const MemoryPlan& plan) {
  std::vector<const Node*> at;
  std::vector<Segment> segment;
  std::map<Value, Live> live;
  const auto place = [&](Value v) { return plan.places[static_cast<std::size_t>(v.id)]; };
  for (const Segment s : kSegments)
    for (const Node& node : graph.nodes(s)) {
      const int t = static_cast<int>(at.size());
      at.push_back(&node), segment.push_back(s);
      for (const Value v : node.out)
        if (!graph.has_dynamic_rows(v))
          live[v] = {v, place(v).offset, place(v).offset + extent_of(graph, place(v), v), t, t, place(v).pitch};
      for (const Value v : node.in)
        if (const auto found = live.find(v); found != live.end()) found->second.to = t;
    }
  // A collective reads its operands until it is waited for.
  std::array<std::vector<int>, kSegments.size()> waited;
  for (const Segment s : kSegments) waited[static_cast<std::size_t>(s)] = waited_at(graph.nodes(s));
  for (std::size_t t = 0; t < at.size(); ++t) {
    if (!communicates(*at[t])) continue;
    const auto begin = static_cast<std::size_t>(std::find(segment.begin(), segment.end(), segment[t]) - segment.begin());
    const std::vector<Node>& nodes = graph.nodes(segment[t]);
    const std::size_t wait =
        begin + std::min(static_cast<std::size_t>(waited[static_cast<std::size_t>(segment[t])][t - begin]), nodes.size() - 1);
    for (const Value v : at[t]->in)
      if (const auto found = live.find(v); found != live.end()) found->second.to = std::max(found->second.to, static_cast<int>(wait));
  }
  for (const Node* node : at)
    SHEAF_CHECK(node->op->name != "set" || place(node->in[0]).block != Block::shared, "{} belongs to another plan and is set",
                name_of(graph, node->in[0]));
  // A pack is read through its members' producers and keeps them alive as long as it is read itself; a chunk its tensor.
  for (auto node = at.rbegin(); node != at.rend(); ++node)
    if ((*node)->op->name == "pack" || ((*node)->op->view && is_stored(graph, plan, **node)))
      for (const Value v : (*node)->in)
        if (const auto found = live.find(v); found != live.end()) found->second.to = std::max(found->second.to, live[(*node)->out[0]].to);
  int end_of_rest = -1;
  for (std::size_t t = 0; t < at.size(); ++t)
    if (segment[t] == Segment::rest) end_of_rest = static_cast<int>(t);
  std::vector<Live> arena, named;
  for (auto& [v, l] : live) {
    const Segment made = segment[static_cast<std::size_t>(l.from)], read = segment[static_cast<std::size_t>(l.to)];
    if (made < Segment::rest && read == Segment::rest) l.to = end_of_rest;
    SHEAF_CHECK(place(v).offset >= 0, "{} has no storage", name_of(graph, v));
    if (place(v).block == Block::arena) {
      SHEAF_CHECK(l.end <= plan.arena_bytes, "{} ends at {} of {} arena bytes", name_of(graph, v), l.end, plan.arena_bytes);
      if (l.begin < l.end) arena.push_back(l);
    }
  }
  std::sort(arena.begin(), arena.end(), [](const Live& a, const Live& b) { return a.from < b.from; });
  std::vector<Live> current;
  for (const Live& newer : arena) {
    std::erase_if(current, [&](const Live& l) { return l.to < newer.from; });
    for (const Live& older : current)
      SHEAF_CHECK(!share_bytes(older, newer) || may_overlap(older, newer, at), "{} and {} are live together and overlap",
                  name_of(graph, older.v), name_of(graph, newer.v));
    current.push_back(newer);
  }
  for (std::size_t i = 0; i < graph.values.size(); ++i)
    if (const ValueInfo& info = graph.values[i];
        info.kind != ValueKind::result && info.kind != ValueKind::gone && plan.places[i].block != Block::shared)
      named.push_back(
          {{static_cast<int>(i)}, plan.places[i].offset, plan.places[i].offset + graph.local_bytes({static_cast<int>(i)}), 0, 0});
  std::sort(named.begin(), named.end(), [](const Live& a, const Live& b) { return a.begin < b.begin; });
  for (std::size_t i = 0; i + 1 < named.size(); ++i)
    SHEAF_CHECK(named[i].end <= named[i + 1].begin, "@{} and @{} overlap", graph[named[i].v].name, graph[named[i + 1].v].name);
}

}    // namespace sheaf
