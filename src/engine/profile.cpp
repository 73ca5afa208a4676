#include "engine/profile.h"

#include <algorithm>
#include <map>
#include <vector>

#include "base/text.h"

namespace sheaf {

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
    const Types in = graph.types(node.in);
    std::vector<Type> out;
    for (const Value v : node.out) out.push_back(graph.type(v));
    Sum& sum = sums[{std::string(node.op->name), std::string(call.kernel)}];
    ++sum.calls, sum.seconds += call.seconds, total += call.seconds;
    sum.flops += flops(*node.op, node.attrs, in);
    sum.bytes += bytes(out, in);
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

}    // namespace sheaf
