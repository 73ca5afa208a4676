#pragma once
// What propagate decides for one call of an op: which atoms cut which factor.
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace sheaf {

using Atoms = std::vector<Atom>;
inline std::uint32_t bit(Atom atom) { return std::uint32_t{1} << atom; }
inline std::uint32_t sharded(const Placement& p) {
  std::uint32_t cut = 0;
  for (const Atoms& atoms : p.dims) cut |= mask(atoms);
  return cut;
}
inline Atoms without(Atoms atoms, std::uint32_t gone) {
  std::erase_if(atoms, [&](Atom atom) { return gone & bit(atom); });
  return atoms;
}
bool is_among(const std::vector<std::string>& names, std::string_view name);
std::string_view operand_name(const OpDef& op, std::size_t i);    // the last one's holds for the rest

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

class Assigner {
 public:
  // preferred: a gradient -> the accumulator that it goes to.
  Assigner(const Graph& graph, bool gathers_tokens, const std::map<Value, Value>& preferred)
      : graph_(graph), gathers_tokens_(gathers_tokens), preferred_(preferred) {}

  Assignment assign(const Node& node, const Rule& rule) const;
  // Where an output with these factors, which lies at p, lies once displaced atoms are back on the dims that they came from.
  Placement home_of(const Assignment& a, const Rule::Factors& factors, Placement p) const;

 private:
  void take_routing(const Node& node, const Rule& rule, Assignment& a) const;
  void take_preferred(const Node& node, const Rule& rule, const Values& operands, Assignment& a) const;
  std::optional<std::string> landing(const Rule& rule, std::size_t p, std::size_t dim, Atom atom, const Shape& shape,
                                     const Assignment& a) const;
  void decide_partials(const Node& node, const Rule& rule, const Values& operands, Assignment& a) const;
  const Placement& placement(Value v) const { return graph_.type(v).placement; }
  std::int64_t size(Atom atom) const { return graph_.mesh.atoms[atom].size; }

  const Graph& graph_;
  bool gathers_tokens_;
  const std::map<Value, Value>& preferred_;
};

}    // namespace sheaf
