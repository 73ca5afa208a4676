// L2. Independent of how placements were chosen: reads off each node which atoms cut which factor, and checks all that follows from it.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "ir/graph.h"

namespace sheaf {

void verify_placements(const Graph& graph);
void verify_moves(const Graph& graph);

namespace {

class NodeCheck {
 public:
  NodeCheck(const Graph& graph, const Node& node)
      : graph_(graph), node_(node), rule_(rule_for(*node.op, node.attrs, graph.types(node.in))) {}

  void run() {
    for (const Value v : node_.in)
      if (v && !placement(v).flat.empty()) return run_flat(placement(v));
    std::size_t p = 0;
    for (std::size_t i = 0; i < node_.in.size(); ++i)
      if (node_.in[i]) {
        cut(node_.in[i], rule_.in[p++]);
        operands_.emplace_back(node_.op->operands[std::min(i, node_.op->operands.size() - 1)], node_.in[i]);
      }
    cut_by_outputs();
    for (const auto& [factor, atoms] : of_) {
      if (used_ & mask(atoms)) fail(fmt::format("factor {} is cut by an atom that cuts another one", factor));
      used_ |= mask(atoms);
    }
    const std::uint32_t passing = passing_partial();
    for (std::size_t o = 0; o < node_.out.size(); ++o) {
      const Placement& out = placement(node_.out[o]);
      std::uint32_t summed = 0;
      for (const auto& [factor, atoms] : of_)
        if (!has(rule_.out[o], factor)) summed |= mask(atoms);
      for (std::size_t d = 0; d < rule_.out[o].size(); ++d)
        if (dim(out, d) != atoms_of(rule_.out[o][d])) fail(fmt::format("output {} is not cut as factor {} is", o, rule_.out[o][d]));
      if (out.partial != (summed | passing)) fail(fmt::format("output {} is not partial over what its rule sums", o));
      if (summed != 0 && out.reduction != rule_.reduction) fail(fmt::format("output {} has the wrong reduction", o));
    }
  }

 private:
  // An elementwise op on flat pieces: all tensors lie alike, scalars are whole. What all operands of `add` are partial over, passes.
  void run_flat(const Placement& flat) const {
    if (!is_elementwise(rule_)) fail("takes no flat pieces");
    std::size_t p = 0;
    for (std::size_t i = 0; i < node_.in.size(); ++i) {
      if (!node_.in[i]) continue;
      if (!same(placement(node_.in[i]), rule_.in[p++].empty() ? Placement{} : flat))
        fail(fmt::format("{} lies elsewhere than the flat operand", name_of(graph_, node_.in[i])));
    }
    if (flat.partial != 0 && rule_.add.empty()) fail("its rule lets no partial pass so");
    for (std::size_t o = 0; o < node_.out.size(); ++o) {
      Placement wanted = flat;
      if (rule_.out[o].empty()) wanted = {.dims = {}, .partial = flat.cut(), .reduction = rule_.reduction};
      if (!same(placement(node_.out[o]), wanted)) fail(fmt::format("output {} does not lie as its flat operand says", o));
    }
  }
  void cut(Value v, const Rule::Factors& factors) {
    for (std::size_t d = 0; d < factors.size(); ++d) {
      const auto& atoms = dim(placement(v), d);
      if (!atoms.empty() && rule_.is_full(factors[d]))
        fail(fmt::format("{} cuts factor {}, which must be whole", name_of(graph_, v), factors[d]));
      const auto [known, fresh] = of_.emplace(factors[d], atoms);
      if (!fresh && known->second != atoms)
        fail(fmt::format("{} cuts factor {} in another way than an operand before", name_of(graph_, v), factors[d]));
    }
  }
  // A factor that only outputs have may be cut where the op owns it: every rank makes its own piece.
  void cut_by_outputs() {
    for (std::size_t o = 0; o < node_.out.size(); ++o)
      for (std::size_t d = 0; d < rule_.out[o].size(); ++d) {
        const std::string& factor = rule_.out[o][d];
        const bool of_operand = std::any_of(rule_.in.begin(), rule_.in.end(),
                                            [&](const Rule::Factors& f) { return std::find(f.begin(), f.end(), factor) != f.end(); });
        if (!of_operand && rule_.owner.contains(factor)) of_.emplace(factor, dim(placement(node_.out[o]), d));
      }
  }
  // What operands are partial over: nothing, the same for all of `add`, or one of `linear`.
  std::uint32_t passing_partial() const {
    std::uint32_t passing = 0;
    std::size_t partial = 0;
    bool linear = true, add = !rule_.add.empty();
    for (const auto& [name, v] : operands_) {
      const Placement& p = placement(v);
      const bool added = std::find(rule_.add.begin(), rule_.add.end(), name) != rule_.add.end();
      add &= added == (p.partial != 0);
      if (p.partial == 0) continue;
      ++partial;
      linear &= std::find(rule_.linear.begin(), rule_.linear.end(), name) != rule_.linear.end();
      if (p.reduction != Reduction::sum)
        fail(fmt::format("{} is a partial {} and passes", name_of(graph_, v), p.reduction == Reduction::max ? "max" : "min"));
      if (p.partial & used_) fail(fmt::format("{} is partial over an atom that cuts a factor", name_of(graph_, v)));
      if (partial > 1 && p.partial != passing)
        fail(fmt::format("{} is partial over other atoms than an operand before", name_of(graph_, v)));
      passing = p.partial;
    }
    if (!(partial == 0 || (partial == 1 && linear) || add)) fail("its rule lets no partial pass so");
    return passing;
  }

  const Placement& placement(Value v) const { return graph_.type(v).placement; }
  static const std::vector<Atom>& dim(const Placement& p, std::size_t d) {
    static const std::vector<Atom> none;
    return d < p.dims.size() ? p.dims[d] : none;
  }
  const std::vector<Atom>& atoms_of(const std::string& factor) const {
    static const std::vector<Atom> none;
    const auto found = of_.find(factor);
    return found == of_.end() ? none : found->second;
  }
  [[noreturn]] void fail(const std::string& what) const {
    std::vector<std::string> in, out;
    for (const Value v : node_.in) in.push_back(v ? fmt::format("{} : {}", name_of(graph_, v), print(graph_.type(v), graph_.mesh)) : "_");
    for (const Value v : node_.out) out.push_back(fmt::format("{} : {}", name_of(graph_, v), print(graph_.type(v), graph_.mesh)));
    throw InternalError(
        fmt::format("{}({}) -> {}: {}; its rule is {}", node_.op->name, join(in, ", "), join(out, ", "), what, rule_.print()));
  }

  const Graph& graph_;
  const Node& node_;
  Rule rule_;
  std::map<std::string, std::vector<Atom>> of_;
  std::vector<std::pair<std::string_view, Value>> operands_;
  std::uint32_t used_ = 0;
};

}    // namespace

void verify_placements(const Graph& graph) {
  const auto placement = [&](Value v) { return graph.type(v).placement; };
  std::vector<bool> packed(graph.values.size());    // of one rank's storage, and what is computed from it: no global tensors
  for (const Segment segment : kSegments)
    for (const Node& node : graph.nodes(segment)) {
      const bool of_packs = node.op->name == "pack" || std::any_of(node.in.begin(), node.in.end(),
                                                                   [&](Value v) { return v && packed[static_cast<std::size_t>(v.id)]; });
      if (of_packs)
        for (const Value v : node.out)
          if (!graph.type(v).shape.empty()) packed[static_cast<std::size_t>(v.id)] = true;
      // A fused op's parts were checked before they were fused, and what a chunk is on a mesh no rule says (verify_moves).
      if (of_packs || is_move(*node.op) || exchanges_rows(*node.op) || !node.op->parts.empty() || node.op->joined || node.op->view)
        continue;
      if (node.op->name != "set" && node.op->name != "accumulate") {
        NodeCheck(graph, node).run();
        continue;
      }
      const Placement target = placement(node.in[0]), value = placement(node.in[1]);
      SHEAF_CHECK(same(target, value), "{} {}: lies at {}, its value {} at {}", node.op->name, name_of(graph, node.in[0]),
                  print(graph.type(node.in[0]), graph.mesh), name_of(graph, node.in[1]), print(graph.type(node.in[1]), graph.mesh));
    }
}

namespace {

// What a move does to the cut: atoms that leave or enter the minor end of one dim, or of the flat cut.
struct CutChange {
  std::vector<Atom> left, entered;
  int num_left = 0, num_entered = 0;    // dims, the flat cut counted as one
  bool legal = true;                    // minor ends only, and dims only where nothing is flat
};

CutChange cut_change(const Placement& from, const Placement& to) {
  CutChange c;
  const auto site = [&](const std::vector<Atom>& a, const std::vector<Atom>& b) {
    const auto common = static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
    if (a == b) return false;
    c.legal &= a.size() != b.size() && std::equal(a.begin(), a.begin() + common, b.begin());
    const bool leaves = a.size() > b.size();
    auto& atoms = leaves ? c.left : c.entered;
    atoms.insert(atoms.end(), (leaves ? a : b).begin() + common, (leaves ? a : b).end());
    ++(leaves ? c.num_left : c.num_entered);
    return true;
  };
  bool dims = false;
  for (std::size_t d = 0; d < std::max(from.dims.size(), to.dims.size()); ++d) dims |= site(from.dim(d), to.dim(d));
  site(from.flat, to.flat);
  c.legal &= !dims || (from.flat.empty() && to.flat.empty());
  return c;
}

// Rows between their tokens and their experts: atoms of token dims against those of e, all else as it was. They are sent one by one, so the
// atoms need not be minor.
bool exchanges(const Placement& from, const Placement& to) {
  const bool to_experts = from.dim(0).empty();
  const Placement &tokens = to_experts ? from : to, &experts = to_experts ? to : from;
  const std::uint32_t moved = mask(experts.dim(0));
  const auto kept = [&](std::vector<Atom> atoms) {
    std::erase_if(atoms, [&](Atom atom) { return moved >> atom & 1; });
    return atoms;
  };
  bool legal = moved != 0 && tokens.dim(0).empty() && from.partial == to.partial && from.flat.empty() && to.flat.empty() &&
               (moved & ~(mask(tokens.dim(1)) | mask(tokens.dim(2)))) == 0;
  for (std::size_t d = 1; d < std::max(from.dims.size(), to.dims.size()); ++d)
    legal &= (d < 3 ? kept(tokens.dim(d)) : tokens.dim(d)) == experts.dim(d);
  return legal;
}

void verify_exchange(const Graph& graph, const Node& node) {
  Placement from = graph.type(node.in[0]).placement, to = graph.type(node.out[0]).placement;
  const Placement tokens = graph.type(node.in.back()).placement;
  // With a dispatch before it, or a combine behind it, the tokens have no dim of experts.
  if (node.op->name == "exchange_dispatch") from.dims.insert(from.dims.begin(), std::vector<Atom>{});
  if (node.op->name == "exchange_combine") to.dims.insert(to.dims.begin(), std::vector<Atom>{});
  const Placement& side = from.dim(0).empty() ? from : to;
  const bool there = side.dim(0).empty() && side.dim(1) == tokens.dim(1) && side.dim(2) == tokens.dim(2);
  SHEAF_CHECK(there && exchanges(from, to), "{} does not take rows from {} to {}; their tokens lie at {}", node.op->name,
              print(graph.type(node.in[0]), graph.mesh), print(graph.type(node.out[0]), graph.mesh),
              print(graph.type(node.in.back()), graph.mesh));
}

}    // namespace

// L3.
void verify_moves(const Graph& graph) {
  for (const Segment segment : kSegments)
    for (const Node& node : graph.nodes(segment)) {
      if (exchanges_rows(*node.op)) verify_exchange(graph, node);
      if (node.op->view)
        for (const Value v : node.in)
          SHEAF_CHECK(same(graph.type(v).placement, graph.type(node.out[0]).placement), "{}: {} lies at {}, {} at {}", node.op->name,
                      name_of(graph, v), print(graph.type(v), graph.mesh), name_of(graph, node.out[0]),
                      print(graph.type(node.out[0]), graph.mesh));
      if (!is_move(*node.op)) continue;
      SHEAF_CHECK(node.op->name != "reshard", "{} is a reshard: it was to be lowered", name_of(graph, node.out[0]));
      for (std::size_t i = 0; i < node.out.size(); ++i) {
        const Placement &from = graph.type(node.in[i]).placement, &to = graph.type(node.out[i]).placement;
        const CutChange c = cut_change(from, to);
        const std::uint32_t reduced = from.partial & ~to.partial, made = to.partial & ~from.partial;
        const auto cut = [&](int left, int entered) { return c.legal && c.num_left == left && c.num_entered == entered; };
        const std::string_view name = node.op->name;
        const bool does = name == "all_gather"       ? cut(1, 0) && reduced == 0 && made == 0
                          : name == "slice"          ? cut(0, 1) && reduced == 0 && made == 0
                          : name == "all_to_all"     ? cut(1, 1) && c.left == c.entered && reduced == 0 && made == 0
                          : name == "all_reduce"     ? cut(0, 0) && reduced != 0 && made == 0
                          : name == "reduce_scatter" ? cut(0, 1) && reduced == mask(c.entered) && made == 0
                                                     : cut(0, 0) && reduced == 0 && made != 0;
        SHEAF_CHECK(does, "{} does not take {} from {} to {}", name, name_of(graph, node.in[i]), print(graph.type(node.in[i]), graph.mesh),
                    print(graph.type(node.out[i]), graph.mesh));
      }
    }
}

}    // namespace sheaf
