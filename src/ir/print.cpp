#include <algorithm>
#include <unordered_map>

#include "base/text.h"
#include "ir/graph.h"

namespace sheaf {

std::string print(const Type& type, const Mesh& mesh) {
  std::vector<std::string> extents;
  for (const std::int64_t n : type.shape) extents.push_back(std::to_string(n));
  if (type.routed) extents[0] = fmt::format("{} of {}", type.routed, extents[0]);
  const std::string placement = print(type.placement, mesh, type.shape.size());
  return fmt::format("{}[{}]{}{}", name(type.dtype), join(extents, ", "), placement.empty() ? "" : " ", placement);
}

Shape Type::stored() const {
  if (routed == 0) return shape;
  Shape rows = {1, 1, shape[1] * shape[2] * std::min(routed, shape[0])};
  rows.insert(rows.end(), shape.begin() + 3, shape.end());
  return rows;
}

static std::unordered_map<int, std::string> numbered(const Graph& graph) {
  std::unordered_map<int, std::string> names;
  for (std::size_t i = 0; i < graph.values.size(); ++i)
    if (!graph.values[i].name.empty()) names[static_cast<int>(i)] = "@" + graph.values[i].name;
  int next = 0;
  for (const auto& segment : graph.segments)
    for (const Node& node : segment)
      for (const Value v : node.out) names[v.id] = "%" + std::to_string(next++);
  return names;
}

std::string name_of(const Graph& graph, Value v) {
  if (!v) return "_";
  const auto names = numbered(graph);
  const auto found = names.find(v.id);
  return found == names.end() ? fmt::format("%?{}", v.id) : found->second;
}

std::string print(const Graph& graph) {
  const auto names = numbered(graph);
  const auto list = [&](const Values& values) {
    std::vector<std::string> parts;
    for (const Value v : values) parts.push_back(!v ? "_" : names.contains(v.id) ? names.at(v.id) : fmt::format("%?{}", v.id));
    return join(parts, ", ");
  };
  std::string text = print(graph.mesh);
  if (!text.empty()) text += "\n";
  constexpr std::string_view kKinds[] = {"input", "state", "argument", "constant", "carried"};
  for (const ValueInfo& info : graph.values) {
    if (info.kind == ValueKind::result || info.kind == ValueKind::gone) continue;
    text += fmt::format("{} @{} {}", kKinds[static_cast<int>(info.kind)], info.name, print(info.type, graph.mesh));
    if (!info.attrs.empty()) text += " " + print(info.attrs);
    if (!info.data.empty()) {
      std::vector<std::string> data;
      for (const double x : info.data) data.push_back(shortest(x));
      text += " = " + join(data, " ");
    }
    text += "\n";
  }
  for (const Segment segment : kSegments) {
    if (graph.nodes(segment).empty()) continue;
    text += fmt::format("{}\n", name(segment));
    for (const Node& node : graph.nodes(segment)) {
      std::string line = "  ";
      if (!node.out.empty()) line += list(node.out) + " = ";
      line += node.op->name;
      if (!node.in.empty()) line += " " + list(node.in);
      if (!node.attrs.empty()) line += " " + print(node.attrs);
      std::vector<std::string> types;
      for (const Value v : node.out) types.push_back(print(graph.type(v), graph.mesh));
      if (!types.empty()) line = fmt::format("{:<64} : {}", line, join(types, "; "));
      if (!node.note.empty()) line += "    # " + node.note;
      text += line + "\n";
    }
  }
  return text;
}

}    // namespace sheaf
