#include "engine/call_work.h"

#include <algorithm>

#include "base/text.h"
#include "ops/op_table.h"

namespace sheaf {
namespace {

// Its elements are not read: it says how long a dim of the result is.
bool gives_extents_only(const Node& node, std::size_t operand) {
  return node.op->operands[std::min(operand, node.op->operands.size() - 1)] == "like" ||
         (node.op == &op(OpId::embedding_grad) && operand == 2);
}

// The dim that an operand's values are indices of; "": they are no indices.
std::string indexed_factor(const OpDef& op, std::size_t operand) {
  const std::vector<Domain>& domains = op.cases.begin()->domain;
  if (domains.empty()) return "";
  const Domain& domain = domains[std::min(operand, domains.size() - 1)];
  return domain.kind == Domain::Kind::index || domain.kind == Domain::Kind::label || domain.kind == Domain::Kind::choice ? domain.factor
                                                                                                                         : "";
}

// Present operands: their numbers, and their factors.
struct Operand {
  std::size_t number;
  Type type;
  Rule::Factors factors;
};

// Of an operand with a dim that no output has and whose indices another operand holds, one element of that dim for each index.
double read_elements(const OpDef& op, const Operand& x, const std::vector<Operand>& operands, const Rule& rule) {
  const auto all = static_cast<double>(num_elements(x.type.stored()));
  for (const Operand& index : operands) {
    const std::string factor = indexed_factor(op, index.number);
    if (&index == &x || factor.empty() || !has(x.factors, factor)) continue;
    if (std::any_of(rule.out.begin(), rule.out.end(), [&](const Rule::Factors& out) { return has(out, factor); })) continue;
    double read = 1;
    for (std::size_t d = 0; d < x.factors.size(); ++d)
      if (x.factors[d] != factor) read *= static_cast<double>(x.type.shape[d]);
    for (std::size_t d = 0; d < index.factors.size(); ++d)
      if (!has(x.factors, index.factors[d])) read *= static_cast<double>(index.type.shape[d]);
    return std::min(all, read);
  }
  return all;
}

// "model.layers.3.mlp.up.weight" -> "model.layers.3"; "": no part of the name is a number.
std::string layer_of(const std::string& name) {
  std::string prefix;
  for (const std::string& word : split(name, '.')) {
    prefix += prefix.empty() ? word : "." + word;
    if (!word.empty() && std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; })) return prefix;
  }
  return "";
}

// Results that are copies of parameters (casts, gathers, slices) have their name.
class ParameterNames {
 public:
  explicit ParameterNames(const Graph& graph) : graph_(graph), copies_(graph.values.size()) {}
  std::string of(Value v) const {
    if (!v) return "";
    const ValueInfo& info = graph_[v];
    if (info.kind == ValueKind::state && !info.attrs.has("metric")) return info.attrs.has("of") ? info.attrs.text("of") : info.name;
    return copies_[static_cast<std::size_t>(v.id)];
  }
  void follow(const Node& node) {
    if (!is_move(*node.op) && node.in.size() != 1) return;
    for (std::size_t i = 0; i < node.out.size() && i < node.in.size(); ++i)
      copies_[static_cast<std::size_t>(node.out[i].id)] = of(node.in[i]);
  }

 private:
  const Graph& graph_;
  std::vector<std::string> copies_;    // by Value::id
};

}    // namespace

CallWork work_of(const Executor& executor, const Node& node) {
  const Graph& graph = executor.graph();
  const auto local = [&](Value v) { return Type{graph.type(v).dtype, executor.local_shape(v), {}, graph.type(v).routed}; };
  std::vector<Operand> operands;
  for (std::size_t i = 0; i < node.in.size(); ++i)
    if (node.in[i]) operands.push_back({i, local(node.in[i]), {}});
  Types types(node.in.size());
  for (const Operand& x : operands) types[x.number] = &x.type;
  const Rule rule = rule_for(*node.op, node.attrs, types);
  for (std::size_t p = 0; p < operands.size(); ++p) operands[p].factors = rule.in[p];

  CallWork work;
  if (!is_move(*node.op)) work.flops = flops(*node.op, node.attrs, types);
  bool known = false;    // the narrowest: what a product multiplies, which it may add to something wider
  for (const Operand& x : operands)
    if (is_float(x.type.dtype) && (!known || size_bytes(x.type.dtype) < size_bytes(work.dtype))) work.dtype = x.type.dtype, known = true;
  if (node.op == &op(OpId::set)) {
    const Place &from = executor.memory().places[static_cast<std::size_t>(node.in[1].id)],
                &to = executor.memory().places[static_cast<std::size_t>(node.in[0].id)];
    if (from.block == to.block && from.offset == to.offset) return work;
  }
  if (!node.op->kernel) return work;    // storage only; zeros between the members of a pack are not worth mention
  double written = 0;
  for (const Value v : node.out) written += static_cast<double>(local(v).bytes());
  if (node.op == &op(OpId::part)) {
    work.bytes = 2 * written;
    return work;
  }
  work.bytes = written;
  for (const Operand& x : operands)
    if (!gives_extents_only(node, x.number))
      work.bytes += read_elements(*node.op, x, operands, rule) * static_cast<double>(size_bytes(x.type.dtype));
  return work;
}

Parts parts_of(const Graph& graph) {
  Parts parts;
  ParameterNames names(graph);
  struct Origin {
    std::string part;
    int time = -1;
    bool in_layer = false, gradient = false;
  };
  std::vector<Origin> origins(graph.values.size());    // by Value::id, of what first and rest make
  int time = 0;
  for (const Segment s : kSegments)
    for (const Node& node : graph.nodes(s)) {
      auto& list = parts[static_cast<std::size_t>(s)];
      if (s == Segment::prologue || s == Segment::epilogue) {
        list.emplace_back(name(s));
        continue;
      }
      std::string parameter;
      // A gradient meets what its layer's forward left: that says more than the layer behind, which it comes from.
      const Origin *latest = nullptr, *left = nullptr;
      bool gradient = node.op->name.ends_with("_grad");
      for (const Value v : node.in) {
        if (!v) continue;
        if (parameter.empty()) parameter = names.of(v);
        const Origin& origin = origins[static_cast<std::size_t>(v.id)];
        gradient |= origin.gradient;
        if (origin.time >= 0 && (!latest || origin.time > latest->time)) latest = &origin;
        if (origin.in_layer && !origin.gradient && (!left || origin.time > left->time)) left = &origin;
      }
      Origin origin{.part = list.empty() ? "embedding" : list.back(), .time = time++, .gradient = gradient};    // neither: as its neighbour
      if (!parameter.empty()) {
        const std::string layer = layer_of(parameter);
        const bool looks_up = node.op == &op(OpId::embedding) || node.op == &op(OpId::embedding_grad);
        origin.in_layer = !layer.empty();
        origin.part = origin.in_layer ? layer : looks_up ? "embedding" : "head";
      } else if (const Origin* from = left ? left : latest) {
        origin.part = from->part, origin.in_layer = from->in_layer;
      }
      list.push_back(origin.part);
      names.follow(node);
      for (const Value v : node.out) origins[static_cast<std::size_t>(v.id)] = origin;
    }
  return parts;
}

}    // namespace sheaf
