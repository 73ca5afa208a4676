// propagate: gives every value its placement and inserts `reshard` where an op needs an operand elsewhere.
//
// On entry: graph.mesh; placements of states (storage), inputs, accumulators of gradients, constants and arguments are given; those of
//           results and of other accumulators are not. On a mesh without atoms nothing is done.
// On exit:  every op's operands lie as its rule wants them for one assignment of atoms to its factors, and its outputs as follows from it
//           (L2). A reshard's note says what it is for.
//
// One sweep in program order; a placement is written once. For a node:
//   1  Its operands offer their shards to its factors: what lies already as the gradient of a state is to lie, then sharded states, then
//      the operand of most bytes, then the first. An atom goes to one factor, a factor takes one operand's atoms, and those by which
//      another is cut more finely: what has more of the tokens is sliced, which is free.
//   2  An atom on a dim that must be whole is displaced: it lands on the next factor of that operand that it divides, dims behind it first.
//      So tokens over sp become heads at attention. At the outputs it returns home.
//   3  A partial passes where the rule says so (linear, add); otherwise it is reduced, onto whatever shard the op wants.
//   4  A value noted `residual` lies at [dp | sp.tp | .]; an accumulator keeps what its value is partial over, but for the atoms that cut
//      it.
//   5  An elementwise op works on flat storage as it lies: all its operands come to the placement of the first that is flat. For any other
//      op a flat operand is gathered.
//   6  A router decides where the tokens are; `slot` and what works by it (dispatch, combine) stay there, routed values live where the
//   experts
//      are. Tokens are gathered over etp before; over ep as well where options.expert_plan is `gather`; else rows go from the tokens'
//      placement to the experts' and back by exchange_rows.
//   7  The epilogue reads a gradient where its state lies: one reduction, from what the accumulator is partial over onto the pieces.
#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "ops/op_table.h"
#include "passes/assignment.h"
#include "passes/pass.h"

namespace sheaf {
namespace {

class Propagation {
 public:
  Propagation(Graph& graph, const Options& options) : graph_(graph), assigner_(graph, options.expert_plan == "gather", preferred_) {
    for (ValueInfo& info : graph.values) info.type.placement.dims.resize(info.type.shape.size());
  }

  void run() {
    std::map<Value, std::map<std::string, Value>> of_prologue;
    for (const Segment segment : kSegments) {
      std::vector<Node> nodes = std::move(graph_.nodes(segment));
      out_ = &graph_.nodes(segment);
      out_->clear();
      known_ = of_prologue;    // what the prologue made may be read everywhere
      if (segment == Segment::epilogue && !nodes.empty()) read_gradients();
      prefer_accumulators(nodes);
      for (Node& node : nodes) place(std::move(node));
      if (segment == Segment::prologue) of_prologue = known_;
    }
  }

 private:
  const Placement& placement(Value v) const { return graph_.type(v).placement; }
  // What readers of v read: v itself, or the reshard that took it to where it belongs.
  Value current(Value v) const {
    const auto found = moved_.find(v);
    return found == moved_.end() ? v : found->second;
  }

  // A gradient prefers the placement of what it is added to; so do the terms of a sum, and what is cast.
  void prefer_accumulators(const std::vector<Node>& nodes) {
    for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
      if (node->op == &op(OpId::accumulate)) {
        if (state_of(graph_[node->in[0]].name)) preferred_[node->in[1]] = node->in[0];
      } else if (node->op == &op(OpId::add) || node->op == &op(OpId::cast)) {
        if (const auto found = preferred_.find(node->out[0]); found != preferred_.end())
          for (const Value v : node->in) preferred_.emplace(v, found->second);
      }
    }
  }

  void read_gradients() {
    for (const Value v : graph_.all(ValueKind::carried))
      if (const Value state = state_of(graph_[v].name))
        if (const Value there = moved_to(v, placement(state), "gradient"); there != v) moved_[v] = there;
  }

  void place(Node node) {
    for (Value& v : node.in)
      if (v) v = current(v);
    if (node.op->name == "accumulate" || node.op->name == "set") return place_effect(std::move(node));
    if (const Value flat = flat_operand(node)) return place_flat(std::move(node), Placement(placement(flat)));
    const Rule rule = rule_for(*node.op, node.attrs, graph_.types(node.in));
    const Assignment a = assigner_.assign(node, rule);
    std::size_t p = 0;
    for (std::size_t i = 0; i < node.in.size(); ++i) {
      if (!node.in[i]) continue;
      Placement wanted = a.at(rule.in[p]);
      if (a.passes[p]) wanted.partial = a.passing & ~sharded(wanted);
      const std::string why = fmt::format("{} {}", node.op->name, operand_name(*node.op, i));
      refuse_idle_gather(node, i, wanted, a, why);
      node.in[i] = moved_to(node.in[i], wanted, why);
      ++p;
    }
    for (std::size_t o = 0; o < node.out.size(); ++o) {
      Placement& out = graph_[node.out[o]].type.placement;
      out = a.at(rule.out[o]);
      out.partial = a.passing;
      for (const auto& [factor, atoms] : a.of)
        if (!is_among(rule.out[o], factor)) out.partial |= mask(atoms);
      if (out.partial & ~a.passing) out.reduction = rule.reduction;
    }
    const Values outputs = node.out;
    const bool residual = node.note == "residual";
    const OpDef* const made_by = node.op;
    note_routing(node);
    out_->push_back(std::move(node));
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      Placement home = assigner_.home_of(a, rule.out[o], placement(outputs[o]));
      if (residual && graph_.type(outputs[o]).shape.size() == 3) home = residual_placement();
      if (graph_.type(outputs[o]).routed && !(made_by == &op(OpId::route) && o == 0)) home = at_experts(home);
      if (const Value there = moved_to(outputs[o], home, residual ? "residual" : "home"); there != outputs[o]) moved_[outputs[o]] = there;
    }
  }

  // The flat operand that an elementwise node follows: a state before others. Absent: there is none, or it is no elementwise node.
  Value flat_operand(const Node& node) const {
    Value found;
    for (const Value v : node.in)
      if (v && !placement(v).flat.empty() && (!found || (graph_[v].kind == ValueKind::state && graph_[found].kind != ValueKind::state)))
        found = v;
    return found && is_elementwise(rule_for(*node.op, node.attrs, graph_.types(node.in))) ? found : Value{};
  }

  void place_flat(Node node, const Placement& p) {
    const Rule rule = rule_for(*node.op, node.attrs, graph_.types(node.in));
    std::size_t operand = 0;
    for (std::size_t i = 0; i < node.in.size(); ++i)
      if (node.in[i])
        node.in[i] = moved_to(node.in[i], rule.in[operand++].empty() ? Placement{} : p,
                              fmt::format("{} {}", node.op->name, operand_name(*node.op, i)));
    for (std::size_t o = 0; o < node.out.size(); ++o) {
      Placement& out = graph_[node.out[o]].type.placement;
      if (rule.out[o].empty())
        out.partial = p.cut(), out.reduction = rule.reduction;
      else
        out = p;
    }
    out_->push_back(std::move(node));
  }

  // target := or += value. An accumulator is partial over what its value is, but for what cuts it.
  void place_effect(Node node) {
    ValueInfo& target = graph_[node.in[0]];
    Placement& to = target.type.placement;
    const Value value = node.in[1];
    if (target.kind == ValueKind::carried && node.op->name == "accumulate")
      to.partial = placement(value).reduction == Reduction::sum ? placement(value).partial & ~to.cut() : 0;
    node.in[1] = moved_to(value, to, fmt::format("{} @{}", node.op->name, target.name));
    out_->push_back(std::move(node));
  }
  Value state_of(std::string_view accumulator) const {
    return accumulator.ends_with(".grad") ? graph_.find(accumulator.substr(0, accumulator.size() - 5)) : Value{};
  }

  // The experts of its rows where the tokens are: what exchange_rows goes by.
  void note_routing(const Node& node) {
    for (const Value v : node.out) {
      if (!graph_.type(v).routed) continue;
      if (node.op == &op(OpId::route)) {
        routing_[v] = node.out[1];
        continue;
      }
      for (const Value from : node.in)
        if (from && routing_.contains(from)) routing_[v] = routing_.at(from);
    }
  }
  Placement at_experts(Placement p) const {
    const Atoms& ep = graph_.mesh.axis("ep");
    for (std::size_t d = 1; d < 3; ++d) p.dims[d] = without(p.dims[d], mask(ep));
    p.dims[0] = ep;
    return p;
  }

  Placement residual_placement() const {
    const Mesh& mesh = graph_.mesh;
    Placement p{.dims = {mesh.axis("dp"), mesh.axis("sp"), {}}};
    for (const Atom atom : mesh.axis("tp")) p.dims[1].push_back(atom);
    return p;
  }

  static constexpr std::int64_t kLarge = std::int64_t{64} << 20;    // bytes: what is smaller (norms, biases) may travel unasked

  // A plan that cuts a weight along a dim which must be whole would send all of it in every step.
  void refuse_whole_weight(Value v, const Placement& wanted, const std::string& why) const {
    const std::uint32_t gathered = sharded(placement(v)) & ~sharded(wanted);
    if (graph_[v].kind != ValueKind::state || gathered == 0 || graph_.type(v).bytes() < kLarge) return;
    user_error(
        "@{} ({} MiB) would be gathered whole {} in every step, for {}: the tensor-parallel plan cuts it where that op needs all of it; "
        "give it another style",
        graph_[v].name, graph_.type(v).bytes() >> 20, over(gathered), why);
  }

  // An operand is gathered because the op is cut by those atoms elsewhere (a weight of the plan, heads in place of tokens), or because its
  // tokens meet experts. Without either nobody asked for it: all ranks of the atoms would do the same work.
  void refuse_idle_gather(const Node& node, std::size_t i, const Placement& wanted, const Assignment& a, const std::string& why) const {
    const Value v = node.in[i];
    const std::uint32_t idle = sharded(placement(v)) & ~sharded(wanted) & ~a.used;
    if (graph_[v].kind == ValueKind::state || idle == 0 || node.op == &op(OpId::route)) return;
    for (std::size_t j = 0; j < node.in.size(); ++j)
      if (node.in[j] && operand_name(*node.op, j) == "slot") return;
    const std::int64_t bytes =
        num_elements(largest_local_shape(graph_.type(v).shape, wanted, graph_.mesh)) * size_bytes(graph_.type(v).dtype);
    if (bytes < kLarge) return;
    user_error(
        "{} : {} would be gathered {} ({} MiB on every rank) in every step, for {}, which all of those ranks would then do alike: the "
        "tensor-parallel plan cuts a dim that this op needs whole and leaves it no other to cut; give the layer before it another style, "
        "or "
        "cut less",
        name_of(graph_, v), print(graph_.type(v), graph_.mesh), over(idle), bytes >> 20, why);
  }
  std::string over(std::uint32_t atoms) const {
    Atoms list;
    for (std::size_t a = 0; a < graph_.mesh.atoms.size(); ++a)
      if (atoms >> a & 1) list.push_back(static_cast<Atom>(a));
    return axes_of(graph_.mesh, list);
  }

  // The value where it is wanted: itself, what another reshard made of it, or a new one. A copy of `wanted`: it may be the graph's, whose
  // values move when one is added.
  Value moved_to(Value v, const Placement wanted, const std::string& why) {    // NOLINT(performance-unnecessary-value-param)
    if (same(placement(v), wanted)) return v;
    const std::string key = print(wanted, graph_.mesh, graph_.type(v).shape.size());
    auto& there = known_[v];
    if (const auto found = there.find(key); found != there.end()) return found->second;
    // From where another reshard took it.
    if (const auto found = source_.find(v); found != source_.end() && same(placement(found->second), wanted)) return found->second;
    refuse_whole_weight(v, wanted, why);
    // Rows change their ranks by an exchange; what is counted once among equal rows (a bias) is a reshard like any other.
    Placement counted = placement(v);
    counted.partial = wanted.partial;
    const bool routed = graph_.type(v).routed > 0 && !same(counted, wanted);
    Node node = routed ? graph_.make_node(op(OpId::exchange_rows), {v, routing_.at(v)}, {}, why)
                       : graph_.make_node(op(OpId::reshard), {v}, {}, why);
    if (graph_.type(v).routed) routing_[node.out[0]] = routing_.at(v);
    graph_[node.out[0]].type.placement = wanted;
    graph_[node.out[0]].type.placement.dims.resize(graph_.type(v).shape.size());
    const Value out = node.out[0];
    out_->push_back(std::move(node));
    source_[out] = v;
    return there[key] = out;
  }

  Graph& graph_;
  Assigner assigner_;
  std::vector<Node>* out_ = nullptr;
  std::map<Value, Value> routing_;                         // a routed value -> the experts of its rows
  std::map<Value, Value> preferred_;                       // a gradient -> the accumulator that it goes to
  std::map<Value, Value> moved_, source_;                  // reshards: of a value to where readers find it; output -> operand
  std::map<Value, std::map<std::string, Value>> known_;    // of this segment, by placement
};

}    // namespace

Graph propagate(Graph graph, const Options& options) {
  if (!graph.mesh.atoms.empty()) Propagation(graph, options).run();
  return graph;
}

}    // namespace sheaf
