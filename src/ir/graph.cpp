#include "ir/graph.h"

#include "base/error.h"
#include "base/text.h"

namespace sheaf {

Shape file_shape(const ValueInfo& state) {
  if (!state.attrs.has("file_shape")) return state.type.shape;
  std::string_view text = state.attrs.text("file_shape");
  SHEAF_CHECK(text.size() > 2 && text.front() == '[' && text.back() == ']', "@{}: file_shape is {}", state.name, text);
  Shape shape;
  for (const std::string& extent : split(text.substr(1, text.size() - 2), ' ')) shape.push_back(std::stoll(extent));
  return shape;
}

std::string_view name(Segment segment) {
  constexpr std::array<std::string_view, 4> kNames = {"prologue", "first", "rest", "epilogue"};
  return kNames[static_cast<std::size_t>(segment)];
}

Value Graph::declare(ValueKind kind, std::string name, Type type, Attrs attrs) {
  SHEAF_CHECK(!names_.contains(name), "value '{}' is declared twice", name);
  const Value v{static_cast<int>(values.size())};
  names_.emplace(name, v);
  values.push_back({kind, std::move(type), std::move(name), std::move(attrs), {}});
  return v;
}

void Graph::undeclare(Value v) {
  names_.erase((*this)[v].name);
  (*this)[v] = {ValueKind::gone, {}, {}, {}, {}};
}

Value Graph::find(std::string_view name) const {
  const auto found = names_.find(name);
  return found == names_.end() ? Value{} : found->second;
}

Values Graph::all(ValueKind kind) const {
  Values out;
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i].kind == kind) out.push_back({static_cast<int>(i)});
  return out;
}

Types Graph::types(const Values& in) const {
  Types out;
  for (const Value v : in) out.push_back(v ? &type(v) : nullptr);
  return out;
}

Node Graph::make_node(const OpDef& op, Values in, Attrs attrs, std::string note) {
  Node node{&op, std::move(in), {}, std::move(attrs), std::move(note)};
  for (Type& type : infer(op, node.attrs, types(node.in))) {
    node.out.push_back({static_cast<int>(values.size())});
    values.push_back({ValueKind::result, std::move(type), {}, {}, {}});
  }
  return node;
}

Values Graph::append(Segment segment, const OpDef& op, Values in, Attrs attrs, std::string note) {
  nodes(segment).push_back(make_node(op, std::move(in), std::move(attrs), std::move(note)));
  return nodes(segment).back().out;
}

const OpDef& find_op(const OpTable& ops, std::string_view name) {
  std::vector<std::string> names;
  for (const OpDef& op : ops) {
    if (op.name == name) return op;
    names.emplace_back(op.name);
  }
  user_error("unknown op {}{}  (all: sheaf ops)", quote(name), did_you_mean(name, names));
}

}    // namespace sheaf
