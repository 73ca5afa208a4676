// Reads what print.cpp writes. One statement a line; '#' starts a comment that is kept as the node's note.
#include <charconv>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "ir/graph.h"

namespace sheaf {
namespace {

std::int64_t integer(std::string_view text) {
  text = trimmed(text);
  std::int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size()) user_error("wanted an integer, found {}", quote(text));
  return n;
}

double real(std::string_view text) {
  double x = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  if (error != std::errc() || end != text.data() + text.size()) user_error("wanted a number, found {}", quote(text));
  return x;
}

// Cuts `text` at the first `mark` outside brackets; returns what follows, "" if there is none.
std::string_view cut_at(std::string_view& text, std::string_view mark) {
  int depth = 0;
  for (std::size_t i = 0; i + mark.size() <= text.size(); ++i) {
    if (text[i] == '{' || text[i] == '[' || text[i] == '(') ++depth;
    if (text[i] == '}' || text[i] == ']' || text[i] == ')') --depth;
    if (depth == 0 && text.substr(i, mark.size()) == mark) {
      const std::string_view rest = text.substr(i + mark.size());
      text = text.substr(0, i);
      return rest;
    }
  }
  return {};
}

class Parser {
 public:
  explicit Parser(const OpTable& ops) : ops_(ops) {}

  Graph run(std::string_view text) {
    int number = 0;
    for (const std::string& line : split(text, '\n')) {
      ++number;
      try {
        statement(line);
      } catch (const UserError& error) {
        user_error("line {}: {}", number, error.what());
      }
    }
    return std::move(graph_);
  }

 private:
  void statement(std::string_view line) {
    std::string_view note;
    if (const std::size_t hash = line.find('#'); hash != std::string_view::npos)
      note = trimmed(line.substr(hash + 1)), line = line.substr(0, hash);
    line = trimmed(line);
    if (line.empty()) return;
    const std::string_view word = line.substr(0, line.find(' '));
    if (word == "mesh") {
      graph_.mesh = parse_mesh(line);
      return;
    }
    for (const Segment s : kSegments)
      if (line == name(s)) {
        segment_ = s;
        return;
      }
    constexpr std::string_view kKinds[] = {"input", "state", "argument", "constant", "carried"};
    for (int kind = 0; kind < 5; ++kind)
      if (word == kKinds[kind]) return declaration(static_cast<ValueKind>(kind), line.substr(word.size()));
    node(line, note);
  }

  void declaration(ValueKind kind, std::string_view text) {
    text = trimmed(text);
    if (text.empty() || text[0] != '@') user_error("wanted @name type, found {}", quote(text));
    std::string_view data = cut_at(text, " = ");
    const std::size_t blank = text.find(' ');
    if (blank == std::string_view::npos) user_error("{} has no type", text);
    const std::string name(text.substr(1, blank - 1));
    if (graph_.find(name)) user_error("@{} is declared twice", name);
    std::string_view type = text.substr(blank);
    const std::size_t brace = type.find('{');
    const Attrs attrs = brace == std::string_view::npos ? Attrs{} : parse_attrs(type.substr(brace));
    const Value v = graph_.declare(kind, name, parse_type(type.substr(0, brace), graph_.mesh), attrs);
    for (const std::string& number : split(trimmed(data), ' '))
      if (!number.empty()) graph_[v].data.push_back(real(number));
  }

  void node(std::string_view line, std::string_view note) {
    std::string_view head = line, rest = cut_at(head, " = ");
    if (rest.data() == nullptr) rest = line, head = {};
    std::string_view call = rest;
    const std::string_view types_text = cut_at(call, " : ");
    call = trimmed(call);
    const std::size_t blank = call.find(' ');
    const OpDef& op = find_op(ops_, call.substr(0, blank));
    std::string_view operands = blank == std::string_view::npos ? "" : call.substr(blank);
    const std::size_t brace = operands.find('{');
    Attrs attrs = brace == std::string_view::npos ? Attrs{} : parse_attrs(operands.substr(brace));
    for (std::size_t i = 0; i < op.attributes.size(); ++i)
      if (const Attr* attr = attrs.find(op.attributes[i]); attr && std::holds_alternative<Float>(op.attribute_types[i]))
        attrs.set(op.attributes[i], as_number(*attr));
    Values in;
    for (const std::string& name : split(trimmed(operands.substr(0, brace)), ',')) in.push_back(value(trimmed(name)));
    const Values out = graph_.append(segment_, op, in, attrs, std::string(note));
    const auto names = split(trimmed(head), ',');
    if (names.size() != out.size()) user_error("{} has {} results, {} are named", op.name, out.size(), names.size());
    const auto types = split(trimmed(types_text), ';');
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (!results_.emplace(trimmed(names[i]), out[i]).second) user_error("{} is defined twice", trimmed(names[i]));
      if (types.empty()) continue;    // types may be left out in hand-written text
      if (types.size() != out.size()) user_error("{} has {} results, {} types are given", op.name, out.size(), types.size());
      const Type given = parse_type(types[i], graph_.mesh);
      Type& inferred = graph_[out[i]].type;
      if (given.dtype != inferred.dtype || given.shape != inferred.shape || given.routed != inferred.routed)
        user_error("{} is given as {}, but {} yields {}", trimmed(names[i]), print(given, graph_.mesh), op.name,
                   print(inferred, graph_.mesh));
      inferred.placement = given.placement;
    }
  }

  Value value(std::string_view name) const {
    if (name == "_") return {};
    if (name.starts_with('@'))
      if (const Value v = graph_.find(name.substr(1))) return v;
    const auto found = results_.find(std::string(name));
    if (found == results_.end()) user_error("{} is not defined above", name);
    return found->second;
  }

  const OpTable& ops_;
  Graph graph_;
  Segment segment_ = Segment::first;
  std::map<std::string, Value, std::less<>> results_;
};

}    // namespace

Type parse_type(std::string_view text, const Mesh& mesh) {
  text = trimmed(text);
  const std::size_t open = text.find('['), close = text.find(']');
  if (open == std::string_view::npos || close == std::string_view::npos) user_error("type {}: wanted dtype[extents]", quote(text));
  const auto dtype = dtype_from_name(text.substr(0, open));
  if (!dtype) user_error("type {}: no dtype {}", quote(text), quote(text.substr(0, open)));
  Type type{*dtype, {}, {}};
  for (const std::string& extent : split(trimmed(text.substr(open + 1, close - open - 1)), ',')) {
    std::string_view all = extent;
    if (const std::string_view rest = cut_at(all, " of "); rest.data() != nullptr && type.shape.empty())
      type.routed = integer(all), all = rest;
    type.shape.push_back(integer(all));
  }
  if (type.routed && type.shape.size() < 3) user_error("type {}: a routed tensor has dims e, b, s and more", quote(text));
  type.placement = parse_placement(text.substr(close + 1), mesh, type.shape.size());
  return type;
}

Graph parse_graph(std::string_view text, const OpTable& ops) { return Parser(ops).run(text); }

}    // namespace sheaf
