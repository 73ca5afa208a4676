#include "passes/assignment.h"

#include <algorithm>
#include <set>

#include "ops/op_table.h"

namespace sheaf {

bool is_among(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string_view operand_name(const OpDef& op, std::size_t i) { return op.operands[std::min(i, op.operands.size() - 1)]; }

Assignment Assigner::assign(const Node& node, const Rule& rule) const {
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
void Assigner::take_routing(const Node& node, const Rule& rule, Assignment& a) const {
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

void Assigner::take_preferred(const Node& node, const Rule& rule, const Values& operands, Assignment& a) const {
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
std::optional<std::string> Assigner::landing(const Rule& rule, std::size_t p, std::size_t dim, Atom atom, const Shape& shape,
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

// `add`: all of these operands stay partial over the union, those that are whole by being counted once, if none is cut by it. `linear`:
// one.
void Assigner::decide_partials(const Node& node, const Rule& rule, const Values& operands, Assignment& a) const {
  a.passes.assign(operands.size(), false);
  std::vector<std::string> names;    // of the rule's operands
  for (std::size_t i = 0; i < node.in.size(); ++i)
    if (node.in[i]) names.emplace_back(operand_name(*node.op, i));
  std::uint32_t all = 0, added = 0;
  for (std::size_t p = 0; p < operands.size(); ++p) {
    const Placement& x = placement(operands[p]);
    if (x.reduction != Reduction::sum) continue;
    all |= x.partial;
    if (is_among(rule.add, names[p])) added |= x.partial;
  }
  if (all == 0) return;
  if (added == all && (a.used & all) == 0) {
    a.passing = all;
    for (std::size_t p = 0; p < operands.size(); ++p) a.passes[p] = is_among(rule.add, names[p]);
    return;
  }
  for (std::size_t p = 0; p < operands.size(); ++p) {
    const Placement& x = placement(operands[p]);
    if (x.partial == 0 || x.reduction != Reduction::sum || (x.partial & a.used) || !is_among(rule.linear, names[p])) continue;
    a.passing = x.partial;
    a.passes[p] = true;
    return;
  }
}

Placement Assigner::home_of(const Assignment& a, const Rule::Factors& factors, Placement p) const {
  for (const auto& [atom, from, to, home] : a.landed) {
    const auto f = static_cast<std::size_t>(dim_of(factors, from)), t = static_cast<std::size_t>(dim_of(factors, to));
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

}    // namespace sheaf
