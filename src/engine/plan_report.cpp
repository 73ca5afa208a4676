#include "engine/plan_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/text.h"
#include "mesh/reshard_plan.h"
#include "passes/expert_rows.h"

namespace sheaf {
namespace {

bool is_moment(const std::string& name) { return name.ends_with(".m") || name.ends_with(".v"); }
std::string bytes_text(std::int64_t bytes) { return human_bytes(static_cast<double>(bytes)); }

// model.layers.17.mlp.up_proj.weight -> model.layers.*.mlp.up_proj.weight
std::string pattern_of(const std::string& name) {
  std::vector<std::string> parts = split(name, '.');
  for (std::string& part : parts)
    if (part.find_first_not_of("0123456789") == std::string::npos) part = "*";
  return join(parts, ".");
}

std::string indented(const std::vector<std::vector<std::string>>& rows) {
  std::string text;
  for (const std::string& line : split(table(rows), '\n'))
    if (!line.empty()) text += "  " + line + "\n";
  return text;
}

}    // namespace

MemoryUse memory_use(const Graph& graph, const MemoryPlan& plan) {
  MemoryUse use;
  for (const Value v : graph.all(ValueKind::state)) {
    if (graph[v].attrs.has("metric") || plan.places[static_cast<std::size_t>(v.id)].block != Block::persistent) continue;
    (is_moment(graph[v].name) ? use.optimizer : use.parameters) += graph.local_bytes(v);
  }
  for (const Value v : graph.all(ValueKind::carried))
    if (graph[v].name.ends_with(".grad")) use.gradients += graph.local_bytes(v);
  std::set<Value> left;    // by the only micro-batch to the epilogue
  std::set<Value> of_body;
  for (const Node& node : graph.nodes(Segment::first)) of_body.insert(node.out.begin(), node.out.end());
  for (const Node& node : graph.nodes(Segment::epilogue))
    for (const Value v : node.in)
      if (v && of_body.contains(v) && !graph.type(v).shape.empty() && left.insert(v).second) use.gradients += graph.local_bytes(v);
  use.activations = plan.persistent_bytes + plan.arena_bytes - use.total();
  use.activations += expert_row_bytes(graph, 1.0);
  return use;
}

std::vector<TrafficRow> communication(const Graph& graph) {
  std::int64_t micro_batches = 1;
  for (const Value v : graph.all(ValueKind::input)) micro_batches = graph.type(v).shape[0];
  std::map<std::pair<std::string, std::string>, std::pair<std::int64_t, double>> sums;
  constexpr Move kMoves[] = {Move::all_gather, Move::all_to_all, Move::reduce_scatter, Move::all_reduce};
  for (const Segment segment : kSegments)
    for (const Node& node : graph.nodes(segment)) {
      if (exchanges_rows(*node.op)) {
        const std::int64_t times = segment == Segment::rest ? micro_batches - 1 : 1;
        auto& [count, sum] = sums[{std::string(node.op->name), "ep"}];
        count += times, sum += static_cast<double>(times) * exchanged_bytes(graph, node);
        continue;
      }
      const auto* move = std::find_if(std::begin(kMoves), std::end(kMoves), [&](Move m) { return name(m) == node.op->name; });
      if (move == std::end(kMoves)) continue;
      const std::int64_t times = segment == Segment::rest ? micro_batches - 1 : 1;
      double bytes = 0;
      std::string axis;
      for (std::size_t i = 0; i < node.in.size(); ++i) {
        const Type& from = graph.type(node.in[i]);
        const std::vector<Atom> over = atoms_between(graph.mesh, from.placement, graph.type(node.out[i]).placement);
        if (i == 0) axis = axes_of(graph.mesh, over).substr(std::string_view("over ").size());
        bytes += sent_bytes(*move, over, from.placement, from.shape, size_bytes(from.dtype), graph.mesh);
      }
      auto& [count, sum] = sums[{std::string(node.op->name), axis}];
      count += times, sum += static_cast<double>(times) * bytes;
    }
  std::vector<TrafficRow> rows;
  for (const auto& [key, value] : sums) rows.push_back({key.first, key.second, value.first, std::llround(value.second)});
  std::stable_sort(rows.begin(), rows.end(), [](const TrafficRow& a, const TrafficRow& b) { return a.bytes > b.bytes; });
  return rows;
}

std::vector<ParameterRow> parameter_rows(const Graph& graph) {
  std::vector<ParameterRow> rows;
  const auto placed = [&](Value v) { return print(graph.type(v).placement, graph.mesh, graph.type(v).shape.size()); };
  for (const Value w : graph.all(ValueKind::state)) {
    if (!graph[w].attrs.has("trainable")) continue;
    const Value copy = graph.find(graph[w].name + ".c"), read = copy ? copy : w, moment = graph.find(graph[w].name + ".m");
    ParameterRow row{.name = graph[w].name, .shape = graph.type(w).shape, .dtype = graph.type(read).dtype};
    Placement use = graph.type(read).placement;
    use.flat.clear();
    row.use = print(use, graph.mesh, row.shape.size());
    row.parameter = placed(read), row.master = placed(w);
    row.bytes = graph.local_bytes(w) + (copy ? graph.local_bytes(copy) : 0);
    if (moment) row.moments = placed(moment), row.bytes += 2 * graph.local_bytes(moment);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<ParameterRow> by_pattern(const std::vector<ParameterRow>& rows) {
  std::vector<ParameterRow> out;
  std::map<std::string, std::vector<std::size_t>> known;    // pattern -> rows of `out`: one for each way of being stored
  for (const ParameterRow& row : rows) {
    const std::string pattern = pattern_of(row.name);
    const auto alike = [&](std::size_t i) {
      ParameterRow other = out[i];
      other.name = row.name, other.count = row.count, other.bytes = row.bytes;
      return other == row;
    };
    auto& places = known[pattern];
    const auto found = std::find_if(places.begin(), places.end(), alike);
    if (found != places.end()) {
      ++out[*found].count, out[*found].bytes += row.bytes;
      continue;
    }
    places.push_back(out.size());
    out.push_back(row);
    out.back().name = pattern;
  }
  return out;
}

Peak arena_peak(const Graph& graph, const MemoryPlan& plan) {
  std::vector<std::pair<Segment, const Node*>> events;
  for (const Segment segment : kSegments)
    for (const Node& node : graph.nodes(segment)) events.emplace_back(segment, &node);
  Peak peak;
  if (events.empty()) return peak;
  std::vector<std::int64_t> change(events.size() + 1);
  for (const ArenaItem& item : plan.arena) {
    change[static_cast<std::size_t>(item.begin)] += item.bytes;
    change[static_cast<std::size_t>(item.end) + 1] -= item.bytes;
  }
  std::size_t at = 0;
  std::int64_t used = 0;
  for (std::size_t t = 0; t < events.size(); ++t)
    if (used += change[t]; used > peak.bytes) peak.bytes = used, at = t;

  // Results have no names: what made them, and the parameter that it read, or the last one that was read before.
  std::vector<std::string> maker(graph.values.size()), gathered(graph.values.size());    // gathered: the parameter that it is a copy of
  std::string last;
  const auto parameter = [&](Value v) -> std::string {
    if (!v || graph[v].kind != ValueKind::state) return v ? gathered[static_cast<std::size_t>(v.id)] : "";
    if (graph[v].attrs.has("of")) return "@" + pattern_of(graph[v].attrs.text("of"));
    return graph[v].attrs.has("trainable") ? "@" + pattern_of(graph[v].name) : "";
  };
  for (const auto& [segment, node] : events) {
    std::string own;
    for (const Value v : node->in)
      if (own.empty()) own = parameter(v);
    if (node->op->name == "all_gather")
      for (std::size_t i = 0; i < node->in.size(); ++i) gathered[static_cast<std::size_t>(node->out[i].id)] = parameter(node->in[i]);
    if (!own.empty()) last = own;
    const std::string made = own.empty() ? fmt::format("{}{}{}", node->op->name, last.empty() ? "" : " after ", last)
                                         : fmt::format("{} {}", node->op->name, own);
    for (const Value v : node->out) maker[static_cast<std::size_t>(v.id)] = made;
    if (node == events[at].second) peak.node = fmt::format("{}: {}", name(segment), made);
  }
  std::map<std::pair<std::string, std::string>, std::pair<std::int64_t, std::int64_t>> groups;
  for (const ArenaItem& item : plan.arena) {
    if (item.begin > static_cast<int>(at) || item.end < static_cast<int>(at)) continue;
    std::string what = "taken by the kernel itself", type;
    if (item.value) {
      what = maker[static_cast<std::size_t>(item.value.id)];
      type = print(graph.local_type(item.value), Mesh{});
    }
    auto& [count, bytes] = groups[{what, type}];
    ++count, bytes += item.bytes;
  }
  for (const auto& [key, sum] : groups) peak.values.push_back({key.first, key.second, sum.first, sum.second});
  std::stable_sort(peak.values.begin(), peak.values.end(), [](const PeakValue& a, const PeakValue& b) { return a.bytes > b.bytes; });
  return peak;
}

std::string memory_text(const MemoryUse& memory) {
  return indented({{"memory of a rank", ""},
                   {"parameters", bytes_text(memory.parameters)},
                   {"gradients", bytes_text(memory.gradients)},
                   {"optimizer", bytes_text(memory.optimizer)},
                   {"activations", bytes_text(memory.activations)},
                   {"total", bytes_text(memory.total())}});
}

std::string communication_text(const std::vector<TrafficRow>& rows) {
  std::vector<std::vector<std::string>> lines = {{"communication of a step", "axis", "count", "a rank sends"}};
  for (const TrafficRow& row : rows) lines.push_back({row.kind, row.axis, std::to_string(row.count), bytes_text(row.bytes)});
  return indented(lines);
}

std::vector<std::string> plan_summary(const Graph& graph, const MemoryPlan& plan) {
  const MemoryUse memory = memory_use(graph, plan);
  std::vector<std::string> lines = {print(graph.mesh)};
  lines.push_back(fmt::format("a rank holds {}: parameters {}, gradients {}, optimizer {}, activations {}", bytes_text(memory.total()),
                              bytes_text(memory.parameters), bytes_text(memory.gradients), bytes_text(memory.optimizer),
                              bytes_text(memory.activations)));
  std::vector<std::string> sent;
  for (const TrafficRow& row : communication(graph))
    sent.push_back(fmt::format("{} {} over {} {}", row.count, row.kind, row.axis, bytes_text(row.bytes)));
  if (const std::int64_t rows = expert_row_bytes(graph, 1.0); rows > 0)
    lines.push_back(fmt::format("rows of experts: {} of the activations if all ranks have equally many, {} on one with twice its share",
                                bytes_text(rows), bytes_text(expert_row_bytes(graph, 2.0))));
  if (!sent.empty()) lines.push_back("a rank sends in a step: " + join(sent, ", "));
  return lines;
}

}    // namespace sheaf
