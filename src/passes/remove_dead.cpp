// remove_dead: removes nodes whose results nothing needs. `set` and `accumulate` are what is needed.
//
//   %1 = silu %0                  becomes      accumulate @a, %0
//   accumulate @a, %0
#include <algorithm>

#include "passes/pass.h"

namespace sheaf {

Graph remove_dead(Graph graph, const Options&) {
  std::vector<bool> live(graph.values.size());
  for (std::size_t s = kSegments.size(); s-- > 0;) {
    auto& nodes = graph.segments[s];
    std::vector<Node> kept;
    for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
      const auto needed = [&](Value v) { return live[static_cast<std::size_t>(v.id)]; };
      if (!node->out.empty() && std::none_of(node->out.begin(), node->out.end(), needed)) continue;
      for (const Value v : node->in)
        if (v) live[static_cast<std::size_t>(v.id)] = true;
      kept.push_back(std::move(*node));
    }
    nodes.assign(std::make_move_iterator(kept.rbegin()), std::make_move_iterator(kept.rend()));
  }
  return graph;
}

}    // namespace sheaf
