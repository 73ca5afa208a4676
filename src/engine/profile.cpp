#include "engine/profile.h"

#include <algorithm>
#include <map>
#include <vector>

#include "base/json.h"
#include "base/text.h"

namespace sheaf {
namespace {

struct Work {
  double flops = 0, bytes = 0;
};
Work work_of(const Graph& graph, const Node& node) {
  const Types in = graph.types(node.in);
  std::vector<Type> out;
  for (const Value v : node.out) out.push_back(graph.type(v));
  return {flops(*node.op, node.attrs, in), bytes(out, in)};
}

}    // namespace

std::string profile_table(const Executor& executor) {
  struct Sum {
    std::int64_t calls = 0;
    double seconds = 0, flops = 0, bytes = 0;
  };
  std::map<std::pair<std::string, std::string>, Sum> sums;
  const Graph& graph = executor.graph();
  double total = 0;
  for (const auto& call : executor.call_times()) {
    const Node& node = graph.nodes(call.segment)[call.node];
    const Work work = work_of(graph, node);
    Sum& sum = sums[{std::string(node.op->name), std::string(call.kernel)}];
    ++sum.calls, sum.seconds += call.seconds, total += call.seconds;
    sum.flops += work.flops, sum.bytes += work.bytes;
  }
  std::vector<std::pair<std::pair<std::string, std::string>, Sum>> sorted(sums.begin(), sums.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  std::vector<std::vector<std::string>> rows = {{"op", "kernel", "calls", "ms", "share", "Gflop/s", "GB/s"}};
  for (const auto& [key, sum] : sorted)
    rows.push_back({key.first, key.second, std::to_string(sum.calls), fmt::format("{:.2f}", sum.seconds * 1e3),
                    fmt::format("{:.1f} %", 100 * sum.seconds / total), fmt::format("{:.1f}", sum.flops / sum.seconds * 1e-9),
                    fmt::format("{:.1f}", sum.bytes / sum.seconds * 1e-9)});
  return table(rows) + fmt::format("all calls: {:.2f} ms\n", total * 1e3);
}

std::string profile_trace(const Executor& executor, std::int64_t step) {
  constexpr int kProcess = 1, kSegments = 1, kCalls = 2;
  constexpr double kMicroseconds = 1e6;
  Json events = Json::array();
  const auto describe = [&](const char* what, int thread, const std::string& name) {
    events.push_back({{"ph", "M"}, {"name", what}, {"pid", kProcess}, {"tid", thread}, {"args", {{"name", name}}}});
  };
  describe("process_name", 0, fmt::format("sheaf, step {}", step));
  describe("thread_name", kSegments, "segments");
  describe("thread_name", kCalls, "calls");
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
  const Graph& graph = executor.graph();
  const auto& calls = executor.call_times();
  for (std::size_t first = 0, i = 0; i < calls.size(); ++i) {
    const auto& call = calls[i];
    const Node& node = graph.nodes(call.segment)[call.node];
    const Work work = work_of(graph, node);
    const std::string segment(name(call.segment));
    Json args = {{"op", std::string(node.op->name)}, {"kernel", std::string(call.kernel)}, {"micro_batch", call.micro_batch}};
    args["out"] = Json::array();
    for (const Value v : node.out) args["out"].push_back(name_of(graph, v) + " " + print(graph.type(v), Mesh{}));
    args["flops"] = work.flops, args["bytes"] = work.bytes;
    complete(kCalls, std::string(node.op->name), segment, call.begin, call.seconds, std::move(args));
    const bool last = i + 1 == calls.size() || calls[i + 1].segment != call.segment || calls[i + 1].micro_batch != call.micro_batch;
    if (!last) continue;
    complete(kSegments, call.micro_batch > 0 ? fmt::format("{} {}", segment, call.micro_batch) : segment, "segment", calls[first].begin,
             call.begin + call.seconds - calls[first].begin, {{"calls", i + 1 - first}});
    first = i + 1;
  }
  return Json{{"displayTimeUnit", "ms"}, {"traceEvents", events}}.dump() + "\n";
}

}    // namespace sheaf
