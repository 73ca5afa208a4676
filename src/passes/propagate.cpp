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
#include "passes/pass.h"

namespace sheaf {
namespace {

using Atoms = std::vector<Atom>;
std::uint32_t bit(Atom atom) { return std::uint32_t{1} << atom; }
std::uint32_t sharded(const Placement& p) {
  std::uint32_t cut = 0;
  for (const Atoms& atoms : p.dims) cut |= mask(atoms);
  return cut;
}
bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Which atoms cut which factor in one call of an op, and what its partial operands do.
struct Assignment {
  std::map<std::string, Atoms> of;
  std::uint32_t used = 0;
  std::uint32_t passing = 0;    // atoms that operands may stay partial over
  std::vector<bool> passes;     // per operand of the rule
  struct Landed {
    Atom atom;
    std::string from, to;
    Atoms home;    // of `from` in the operand that it came from
  };
  std::vector<Landed> landed;

  const Atoms& operator[](const std::string& factor) const {
    static const Atoms none;
    const auto found = of.find(factor);
    return found == of.end() ? none : found->second;
  }
  Placement at(const Rule::Factors& factors) const {
    Placement p;
    for (const std::string& f : factors) p.dims.push_back((*this)[f]);
    return p;
  }
};

class Propagation {
 public:
  Propagation(Graph& graph, const Options& options) : graph_(graph), gathers_tokens_(options.expert_plan == "gather") {
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
    const Assignment a = assign(node, rule);
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
        if (!contains(rule.out[o], factor)) out.partial |= mask(atoms);
      if (out.partial & ~a.passing) out.reduction = rule.reduction;
    }
    const Values outputs = node.out;
    const bool residual = node.note == "residual";
    const OpDef* const made_by = node.op;
    note_routing(node);
    out_->push_back(std::move(node));
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      Placement home = home_of(a, rule.out[o], placement(outputs[o]));
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

  Assignment assign(const Node& node, const Rule& rule) const {
    Assignment a;
    Values operands;
    for (const Value v : node.in)
      if (v) operands.push_back(v);
    std::vector<std::size_t> order(operands.size());
    for (std::size_t p = 0; p < order.size(); ++p) order[p] = p;
    const auto is_sharded_state = [&](std::size_t p) {
      return graph_[operands[p]].kind == ValueKind::state && sharded(placement(operands[p])) != 0;
    };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) {
      if (is_sharded_state(x) != is_sharded_state(y)) return is_sharded_state(x);
      return graph_.type(operands[x]).bytes() > graph_.type(operands[y]).bytes();
    });
    struct Displaced {
      std::size_t p, dim;
      Atom atom;
    };
    std::vector<Displaced> displaced;
    take_routing(node, rule, a);
    take_preferred(node, rule, operands, a);
    std::set<std::string> settled;
    for (const auto& [factor, atoms] : a.of) settled.insert(factor);
    for (const std::size_t p : order)
      for (std::size_t d = 0; d < rule.in[p].size(); ++d) {
        const std::string& factor = rule.in[p][d];
        const Atoms& atoms = placement(operands[p]).dims[d];
        if (rule.is_full(factor)) {
          for (const Atom atom : atoms) displaced.push_back({p, d, atom});
        } else if (Atoms& taken = a.of[factor];
                   std::equal(taken.begin(), taken.end(), atoms.begin(),
                              atoms.begin() + static_cast<std::ptrdiff_t>(std::min(taken.size(), atoms.size()))) &&
                   !settled.contains(factor)) {
          for (std::size_t i = taken.size(); i < atoms.size(); ++i)
            if (!(a.used & bit(atoms[i]))) taken.push_back(atoms[i]), a.used |= bit(atoms[i]);
        }
      }
    for (const auto& [p, dim, atom] : displaced)
      if (const auto to = landing(rule, p, dim, atom, graph_.type(operands[p]).shape, a)) {
        a.of[*to].push_back(atom);
        a.used |= bit(atom);
        a.landed.push_back({atom, rule.in[p][dim], *to, placement(operands[p]).dims[dim]});
      }
    // An operand that was displaced from the same dim by the same atom knows its home as well (q from s, k from u).
    for (const auto& [p, dim, atom] : displaced)
      for (const auto& there : std::vector(a.landed))
        if (there.atom == atom && there.from != rule.in[p][dim])
          a.landed.push_back({atom, rule.in[p][dim], there.to, placement(operands[p]).dims[dim]});
    decide_partials(node, rule, operands, a);
    return a;
  }

  // What works by `slot` works where it lies: its factors are settled, cut or not. A router decides for the tokens that a rank dispatches.
  void take_routing(const Node& node, const Rule& rule, Assignment& a) const {
    const auto settle = [&](const std::string& factor, Atoms atoms) {
      a.used |= mask(atoms);
      a.of[factor] = std::move(atoms);
    };
    if (node.op == &op(OpId::route)) {
      std::uint32_t gathered = mask(graph_.mesh.axis("etp"));
      if (gathers_tokens_) gathered |= mask(graph_.mesh.axis("ep"));
      for (std::size_t d = 0; d < 2; ++d) settle(rule.in[0][d], without(placement(node.in[0]).dim(d), gathered));
      if (gathers_tokens_) settle(rule.out[0][0], graph_.mesh.axis("ep"));
      return;
    }
    for (std::size_t i = 0; i < node.in.size(); ++i)
      if (node.in[i] && operand_name(*node.op, i) == "slot")
        for (std::size_t d = 0; d < rule.in[i].size(); ++d) settle(rule.in[i][d], placement(node.in[i]).dim(d));
  }
  static Atoms without(Atoms atoms, std::uint32_t gone) {
    std::erase_if(atoms, [&](Atom atom) { return gone & bit(atom); });
    return atoms;
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

  void take_preferred(const Node& node, const Rule& rule, const Values& operands, Assignment& a) const {
    for (std::size_t o = 0; o < node.out.size(); ++o) {
      const auto found = preferred_.find(node.out[o]);
      if (found == preferred_.end() || graph_.type(found->second).shape.size() != rule.out[o].size()) continue;
      const Placement& wanted = placement(found->second);
      for (std::size_t d = 0; d < rule.out[o].size(); ++d) {
        const std::string& factor = rule.out[o][d];
        if (wanted.dim(d).empty() || rule.is_full(factor) || a.of.contains(factor) || (a.used & mask(wanted.dim(d)))) continue;
        for (std::size_t p = 0; p < operands.size(); ++p)
          for (std::size_t i = 0; i < rule.in[p].size(); ++i)
            if (rule.in[p][i] == factor && placement(operands[p]).dim(i) == wanted.dim(d)) a.of[factor] = wanted.dim(d);
        if (a.of.contains(factor)) a.used |= mask(wanted.dim(d));
      }
    }
  }

  // The factor that a displaced atom cuts instead: behind its dim first, then before it; where the extent divides, else where
  // there is something for every piece.
  std::optional<std::string> landing(const Rule& rule, std::size_t p, std::size_t dim, Atom atom, const Shape& shape,
                                     const Assignment& a) const {
    if (a.used & bit(atom)) return std::nullopt;
    std::vector<std::size_t> dims;
    for (std::size_t d = dim + 1; d < rule.in[p].size(); ++d) dims.push_back(d);
    for (std::size_t d = dim; d-- > 0;) dims.push_back(d);
    for (const bool evenly : {true, false})
      for (const std::size_t d : dims) {
        if (rule.is_full(rule.in[p][d])) continue;
        std::int64_t pieces = size(atom);
        for (const Atom other : a[rule.in[p][d]]) pieces *= size(other);
        if (evenly ? shape[d] % pieces == 0 : shape[d] >= pieces) return rule.in[p][d];
      }
    return std::nullopt;
  }

  // `add`: all operands stay partial over the union, those that are whole by being counted once, if none is cut by it. `linear`: one.
  void decide_partials(const Node& node, const Rule& rule, const Values& operands, Assignment& a) const {
    a.passes.assign(operands.size(), false);
    std::uint32_t all = 0;
    for (const Value v : operands)
      if (placement(v).reduction == Reduction::sum) all |= placement(v).partial;
    if (all == 0) return;
    std::vector<std::string> names;    // of the rule's operands
    for (std::size_t i = 0; i < node.in.size(); ++i)
      if (node.in[i]) names.emplace_back(operand_name(*node.op, i));
    const bool may_add = !rule.add.empty() && (a.used & all) == 0 &&
                         std::all_of(names.begin(), names.end(), [&](const std::string& name) { return contains(rule.add, name); });
    if (may_add) {
      a.passing = all;
      a.passes.assign(operands.size(), true);
      return;
    }
    for (std::size_t p = 0; p < operands.size(); ++p) {
      const Placement& x = placement(operands[p]);
      if (x.partial == 0 || x.reduction != Reduction::sum || (x.partial & a.used) || !contains(rule.linear, names[p])) continue;
      a.passing = x.partial;
      a.passes[p] = true;
      return;
    }
  }

  // Where an output lies once displaced atoms are back on the dims that they came from.
  Placement home_of(const Assignment& a, const Rule::Factors& factors, Placement p) const {
    const auto dim_of = [&](const std::string& f) {
      return static_cast<std::size_t>(std::find(factors.begin(), factors.end(), f) - factors.begin());
    };
    for (const auto& [atom, from, to, home] : a.landed) {
      const std::size_t f = dim_of(from), t = dim_of(to);
      if (f == factors.size()) continue;
      if (t < factors.size()) std::erase(p.dims[t], atom);
      p.partial &= ~bit(atom);
      if (std::find(p.dims[f].begin(), p.dims[f].end(), atom) != p.dims[f].end()) continue;
      p.dims[f].push_back(atom);
      const auto place = [&](Atom x) { return std::find(home.begin(), home.end(), x) - home.begin(); };
      std::sort(p.dims[f].begin(), p.dims[f].end(), [&](Atom x, Atom y) { return place(x) < place(y); });
    }
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
  static std::string_view operand_name(const OpDef& op, std::size_t i) { return op.operands[std::min(i, op.operands.size() - 1)]; }
  std::int64_t size(Atom atom) const { return graph_.mesh.atoms[atom].size; }

  Graph& graph_;
  bool gathers_tokens_;
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
