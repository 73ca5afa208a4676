#include <algorithm>

#include "base/json.h"
#include "base/text.h"
#include "engine/profile.h"

namespace sheaf {
namespace {

constexpr int kProcess = 1, kSegmentsThread = 1, kMainThread = 2, kCollectivesThread = 3;
constexpr double kMicroseconds = 1e6;

// Bytes that live in the arena at each node, counted over all segments.
std::vector<std::int64_t> live_bytes(const MemoryPlan& plan, std::size_t num_nodes) {
  std::vector<std::int64_t> live(num_nodes + 1);
  for (const ArenaItem& item : plan.arena) {
    live[static_cast<std::size_t>(item.begin)] += item.bytes;
    live[static_cast<std::size_t>(item.end) + 1] -= item.bytes;
  }
  for (std::size_t n = 1; n < live.size(); ++n) live[n] += live[n - 1];
  return live;
}

}    // namespace

std::string Profile::trace(std::int64_t step) const {
  const Graph& graph = executor_.graph();
  Json events = Json::array();
  const auto describe = [&](const char* what, int thread, const std::string& name) {
    events.push_back({{"ph", "M"}, {"name", what}, {"pid", kProcess}, {"tid", thread}, {"args", {{"name", name}}}});
  };
  describe("process_name", 0, fmt::format("sheaf, step {}", step));
  describe("thread_name", kSegmentsThread, "segments");
  describe("thread_name", kMainThread, "main");
  if (beside_ > 0) describe("thread_name", kCollectivesThread, "collectives");
  const auto complete = [&](int thread, std::string name, const std::string& category, double begin, double seconds, Json args) {
    events.push_back({{"ph", "X"},
                      {"name", std::move(name)},
                      {"cat", category},
                      {"pid", kProcess},
                      {"tid", thread},
                      {"ts", begin * kMicroseconds},
                      {"dur", seconds * kMicroseconds},
                      {"args", std::move(args)}});
  };
  std::array<std::size_t, kSegments.size()> first_node{};
  std::size_t num_nodes = 0;
  for (const Segment s : kSegments) first_node[static_cast<std::size_t>(s)] = num_nodes, num_nodes += graph.nodes(s).size();
  const std::vector<std::int64_t> live = live_bytes(executor_.memory(), num_nodes);

  std::size_t in_segment = 0;
  double begin = 0, end = 0;    // of the segment
  for (std::size_t i = 0; i < calls_.size(); ++i) {
    const Call& call = calls_[i];
    const std::string segment(name(call.time.segment));
    begin = in_segment == 0 ? call.time.begin : std::min(begin, call.time.begin);
    end = in_segment == 0 ? call.time.begin + call.time.seconds : std::max(end, call.time.begin + call.time.seconds);
    ++in_segment;
    if (call.time.track == Track::waits) {
      complete(kMainThread, "waiting for collectives", segment, call.time.begin, call.time.seconds, Json::object());
    } else {
      Json args = {{"op", std::string(call.node->op->name)},
                   {"kernel", std::string(call.time.kernel)},
                   {"micro_batch", call.time.micro_batch},
                   {"part", call.part},
                   {"flops", call.work.flops},
                   {"bytes", call.work.bytes},
                   {"floor_us", call.floor * kMicroseconds}};
      args["out"] = Json::array();
      for (const Value v : call.node->out) args["out"].push_back(name_of(graph, v) + " " + print(graph.type(v), Mesh{}));
      complete(call.time.track == Track::main ? kMainThread : kCollectivesThread, std::string(call.node->op->name), segment,
               call.time.begin, call.time.seconds, std::move(args));
      if (call.time.track == Track::main)
        events.push_back({{"ph", "C"},
                          {"name", "arena"},
                          {"pid", kProcess},
                          {"ts", call.time.begin * kMicroseconds},
                          {"args", {{"bytes", live[first_node[static_cast<std::size_t>(call.time.segment)] + call.time.node]}}}});
    }
    const bool last = i + 1 == calls_.size() || calls_[i + 1].time.segment != call.time.segment ||
                      calls_[i + 1].time.micro_batch != call.time.micro_batch;
    if (!last) continue;
    complete(kSegmentsThread, call.time.micro_batch > 0 ? fmt::format("{} {}", segment, call.time.micro_batch) : segment, "segment", begin,
             end - begin, {{"calls", in_segment}});
    in_segment = 0;
  }
  return Json{{"displayTimeUnit", "ms"}, {"traceEvents", events}}.dump() + "\n";
}

}    // namespace sheaf
