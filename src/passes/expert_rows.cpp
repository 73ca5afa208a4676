#include "passes/expert_rows.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace sheaf {
namespace {

std::int64_t row_bytes(const Type& local) {
  const Shape stored = local.stored();
  return local.bytes() / std::max<std::int64_t>(1, stored[2]);
}

std::int64_t bytes_of(const Graph& graph, Value v, double load) {
  const Type local = graph.local_type(v);
  const std::int64_t all = graph.type(v).shape[0], most = local.stored()[2];
  const double mean =
      static_cast<double>(local.shape[1] * local.shape[2] * local.routed) * static_cast<double>(local.shape[0]) / static_cast<double>(all);
  return std::min(most, static_cast<std::int64_t>(std::ceil(load * mean))) * row_bytes(local);
}

}    // namespace

std::int64_t expert_row_bytes(const Graph& graph, double load) {
  std::int64_t peak = 0;
  for (const Segment segment : kSegments) {
    const std::vector<Node>& nodes = graph.nodes(segment);
    std::map<Value, std::size_t> last;
    for (std::size_t n = 0; n < nodes.size(); ++n)
      for (const auto* side : {&nodes[n].in, &nodes[n].out})
        for (const Value v : *side)
          if (v && graph.has_dynamic_rows(v)) last[v] = n;
    std::int64_t held = 0;
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      std::int64_t staged = 0;
      for (const Value v : nodes[n].out)
        if (graph.has_dynamic_rows(v)) held += bytes_of(graph, v, load), staged += bytes_of(graph, v, load);
      if (!exchanges_rows(*nodes[n].op)) staged = 0;    // as they were received, before they are sorted
      peak = std::max(peak, held + staged);
      for (const auto* side : {&nodes[n].in, &nodes[n].out})
        for (const Value v : *side)
          if (v && graph.has_dynamic_rows(v) && last.contains(v) && last.at(v) == n) held -= bytes_of(graph, v, load), last.erase(v);
    }
  }
  return peak;
}

double exchanged_bytes(const Graph& graph, const Node& node) {
  const bool dispatches = node.op->name == "exchange_dispatch", combines = node.op->name == "exchange_combine";
  const Value routed = dispatches ? node.out[0] : node.in[0];
  const Type tokens = graph.local_type(node.in.back());    // the experts of the rows where the tokens are
  const Placement& p = graph.type(routed).placement;
  const auto ranks = static_cast<double>(graph.mesh.size(p.dim(0).empty() ? graph.type(node.out[0]).placement.dim(0) : p.dim(0)));
  const auto count = static_cast<double>(tokens.shape[1] * tokens.shape[2]), k = static_cast<double>(tokens.routed);
  // A token goes to each other rank that has one of its choices, or for each choice.
  const double rows = dispatches || combines ? count * (ranks - 1) * (1 - std::pow(1 - 1 / ranks, k)) : count * k * (1 - 1 / ranks);
  return rows * static_cast<double>(row_bytes(graph.local_type(routed)));
}

}    // namespace sheaf
