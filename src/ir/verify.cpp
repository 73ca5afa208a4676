#include <set>

#include "base/error.h"
#include "base/text.h"
#include "ir/graph.h"

namespace sheaf {

void verify_placements(const Graph& graph);
void verify_moves(const Graph& graph);    // verify_placements.cpp

namespace {

std::string describe(const Graph& graph, Segment segment, const Node& node) {
  std::vector<std::string> out;
  for (const Value v : node.out) out.push_back(name_of(graph, v));
  return fmt::format("{}: {} = {}", name(segment), join(out, ", "), node.op->name);
}

// Which earlier segments' results a segment may read. `first` results reach the epilogue only when there is no `rest`: with M = 1
// there are no accumulators.
bool may_read(const Graph& graph, Segment reader, Segment writer) {
  if (reader == writer || writer == Segment::prologue) return true;
  return reader == Segment::epilogue && writer == Segment::first && graph.nodes(Segment::rest).empty();
}

void verify_ssa(const Graph& graph) {
  std::vector<int> defined(graph.values.size(), -1);
  for (const Segment segment : kSegments)
    for (const Node& node : graph.nodes(segment)) {
      for (const Value v : node.in) {
        if (!v || graph[v].kind != ValueKind::result) continue;
        const int at = defined[static_cast<std::size_t>(v.id)];
        SHEAF_CHECK(at >= 0, "{} reads {} before it is defined", describe(graph, segment, node), name_of(graph, v));
        SHEAF_CHECK(may_read(graph, segment, static_cast<Segment>(at)), "{} reads {} of segment {}", describe(graph, segment, node),
                    name_of(graph, v), name(static_cast<Segment>(at)));
      }
      for (const Value v : node.out) {
        int& at = defined[static_cast<std::size_t>(v.id)];
        SHEAF_CHECK(graph[v].kind == ValueKind::result && at < 0, "{} defines {} twice", describe(graph, segment, node), name_of(graph, v));
        at = static_cast<int>(segment);
      }
      if (node.op->name == "set")
        SHEAF_CHECK(segment == Segment::epilogue || graph[node.in[0]].kind != ValueKind::state, "{} sets a state outside the epilogue",
                    describe(graph, segment, node));
    }
}

void verify_types(const Graph& graph) {
  for (const Segment segment : kSegments)
    for (const Node& node : graph.nodes(segment)) {
      std::vector<Type> inferred;
      try {
        inferred = infer(*node.op, node.attrs, graph.types(node.in));
      } catch (const UserError& error) {
        SHEAF_CHECK(false, "{}: {}", describe(graph, segment, node), error.what());
      }
      SHEAF_CHECK(inferred.size() == node.out.size(), "{} has {} outputs, {} are inferred", describe(graph, segment, node), node.out.size(),
                  inferred.size());
      for (std::size_t i = 0; i < inferred.size(); ++i) {
        const Type& given = graph.type(node.out[i]);
        SHEAF_CHECK(given.dtype == inferred[i].dtype && given.shape == inferred[i].shape, "{} is {}, its rule yields {}",
                    describe(graph, segment, node), print(given, graph.mesh), print(inferred[i], graph.mesh));
      }
    }
}

// Once the backward exists (some state has a gradient accumulator "NAME.grad"), every trainable state takes part in it.
void verify_gradients(const Graph& graph) {
  std::set<std::string> with_gradient, trainable;
  for (const Value v : graph.all(ValueKind::carried))
    if (graph[v].name.ends_with(".grad")) with_gradient.insert(graph[v].name.substr(0, graph[v].name.size() - 5));
  if (with_gradient.empty()) return;
  for (const Value v : graph.all(ValueKind::state))
    if (graph[v].attrs.has("trainable") && graph[v].attrs.flag("trainable"))
      SHEAF_CHECK(with_gradient.contains(graph[v].name), "trainable state @{} has no gradient: the loss does not depend on it",
                  graph[v].name);
}

}    // namespace

void verify(const Graph& graph, Level level) {
  verify_ssa(graph);
  if (level < Level::l1) return;
  verify_types(graph);
  verify_gradients(graph);
  if (level < Level::l2 || graph.mesh.atoms.empty()) return;
  verify_placements(graph);
  if (level >= Level::l3) verify_moves(graph);
}

}    // namespace sheaf
