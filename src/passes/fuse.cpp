// fuse: nodes that a fused op names (ops/parts.h) become one node of it: one kernel, one pass over memory.
//
// On entry: local (L3).
// On exit:  the body's values that are left are what they were. A fused node stands where all of its operands are known and none of its
//           results is read yet.
//
//   %2 = add %0, %1
//   %3 = rms_norm %2, @w.c {eps=1e-06}      becomes      %2, %3 = add_rms_norm %0, %1, @w.c {eps=1e-06}
#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "ops/parts.h"
#include "passes/pass.h"

namespace sheaf {
namespace {

using Names = std::map<std::string, Value, std::less<>>;

// What is known of a fused op while its parts are looked for: nodes by part, values by name, attributes.
struct Match {
  std::vector<std::optional<std::size_t>> node;    // by part
  Names values;
  Attrs attrs;
};

// Positions: 2n + 1 is node n, 2n what is fused and stands in front of it.
constexpr std::size_t position_of(std::size_t node) { return 2 * node + 1; }

class Fusion {
 public:
  Fusion(Graph& graph, Segment segment) : graph_(graph), segment_(segment), nodes_(std::move(graph.nodes(segment))) {
    gone_.resize(nodes_.size());
    before_.resize(nodes_.size() + 1);
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      for (const Value v : nodes_[n].out) made_at_[v] = position_of(n);
      for (const Value v : nodes_[n].in)
        if (v) read_at_[v].push_back(position_of(n));
      if (nodes_[n].op->name == "set") set_at_[nodes_[n].in[0]] = n;
    }
    for (const Segment other : kSegments)
      if (other != segment)
        for (const Node& node : graph.nodes(other)) read_elsewhere_.insert(node.in.begin(), node.in.end());
  }

  void run() {
    std::vector<const OpDef*> largest_first;
    for (const OpDef& fused : all_ops())
      if (!fused.parts.empty()) largest_first.push_back(&fused);
    std::stable_sort(largest_first.begin(), largest_first.end(),
                     [](const OpDef* a, const OpDef* b) { return parts_of(*a).parts.size() > parts_of(*b).parts.size(); });
    for (const OpDef* fused : largest_first)
      for (std::size_t n = 0; n < nodes_.size(); ++n)
        if (nodes_[n].op == parts_of(*fused).parts.back().op && !gone_[n]) find(*fused, parts_of(*fused), n);
    auto& out = graph_.nodes(segment_);
    for (std::size_t n = 0; n <= nodes_.size(); ++n) {
      for (Node& node : before_[n]) out.push_back(std::move(node));
      if (n < nodes_.size() && !gone_[n]) out.push_back(std::move(nodes_[n]));
    }
  }

 private:
  void find(const OpDef& fused, const Parts& parts, std::size_t last) {
    for (const bool swapped : {false, true}) {
      Match match{.node = std::vector<std::optional<std::size_t>>(parts.parts.size()), .values = {}, .attrs = {}};
      if (!assign(parts.parts.back(), last, swapped, match)) continue;
      match.node.back() = last;
      if (extend(fused, parts, match)) return;
    }
  }

  // The node as this part: operands in the given order, or swapped where the op commutes.
  bool assign(const Parts::Part& part, std::size_t n, bool swapped, Match& match) const {
    const Node& node = nodes_[n];
    if (node.op != part.op || gone_[n] || node.in.size() != part.in.size()) return false;
    const bool commutes = part.op == &op(OpId::add) || part.op == &op(OpId::mul);
    if (swapped && (!commutes || graph_.type(node.in[0]).shape != graph_.type(node.in[1]).shape)) return false;
    const auto bind = [&](const std::string& name, Value v) { return v && match.values.emplace(name, v).first->second == v; };
    for (std::size_t i = 0; i < node.in.size(); ++i)
      if (!bind(part.in[i], node.in[swapped ? 1 - i : i])) return false;
    for (std::size_t o = 0; o < node.out.size(); ++o)
      if (!bind(part.out[o], node.out[o])) return false;
    for (const auto& [name, value] : part.attrs) {
      const Attr& found = *node.attrs.find(name);
      if (value ? !means(node, name, found, *value) : match.attrs.has(name) && !(*match.attrs.find(name) == found)) return false;
      if (!value) match.attrs.set(name, found);
    }
    return true;
  }

  // The attribute's value, or by name the dtype that `same` is.
  bool means(const Node& node, const std::string& name, const Attr& found, const Attr& wanted) const {
    const bool same = name == "dtype" && wanted == Attr(Text("same")) && graph_.type(node.in[0]).dtype == graph_.type(node.out[0]).dtype;
    return found == wanted || same;
  }

  // Looks for the next part that touches what is known, until none is missing.
  bool extend(const OpDef& fused, const Parts& parts, const Match& match) {
    for (std::size_t p = parts.parts.size(); p-- > 0;) {
      if (match.node[p]) continue;
      const Parts::Part& part = parts.parts[p];
      for (const std::size_t n : candidates(part, match)) {
        if (std::find(match.node.begin(), match.node.end(), n) != match.node.end()) continue;
        for (const bool swapped : {false, true}) {
          Match more = match;
          if (!assign(part, n, swapped, more)) continue;
          more.node[p] = n;
          if (extend(fused, parts, more)) return true;
        }
      }
      if (touches(part, match)) return false;
    }
    return std::all_of(match.node.begin(), match.node.end(), [](const auto& n) { return n.has_value(); }) && replace(fused, parts, match);
  }
  static bool touches(const Parts::Part& part, const Match& match) {
    const auto known = [&](const std::string& name) { return match.values.contains(name); };
    return std::any_of(part.out.begin(), part.out.end(), known) || std::any_of(part.in.begin(), part.in.end(), known);
  }
  // Nodes that make or read what is known of the part.
  std::vector<std::size_t> candidates(const Parts::Part& part, const Match& match) const {
    std::vector<std::size_t> nodes;
    const auto take = [&](std::size_t position) {
      if (position % 2 == 1) nodes.push_back(position / 2);
    };
    for (const std::string& name : part.out)
      if (const auto v = match.values.find(name); v != match.values.end()) {
        if (const auto made = made_at_.find(v->second); made != made_at_.end()) take(made->second);
        return nodes;
      }
    for (const std::string& name : part.in)
      if (const auto v = match.values.find(name); v != match.values.end()) {
        if (const auto read = read_at_.find(v->second); read != read_at_.end())
          for (const std::size_t position : read->second) take(position);
        return nodes;
      }
    return nodes;
  }

  bool replace(const OpDef& fused, const Parts& parts, const Match& match) {
    Values in, out;
    for (const std::string_view name : fused.operands) in.push_back(match.values.find(name)->second);
    for (const std::string& name : parts.outputs) out.push_back(match.values.at(name));
    Attrs attrs;
    for (const std::string_view name : fused.attributes) attrs.set(name, *match.attrs.find(name));
    if (!same_types(fused, attrs, in, out)) return false;

    const auto matched = [&](std::size_t position) {
      return position % 2 == 1 && std::find(match.node.begin(), match.node.end(), position / 2) != match.node.end();
    };
    // In front of which node it may stand: behind what defines its operands, before who reads its results or changes its operands.
    std::size_t first = 0, last = **std::max_element(match.node.begin(), match.node.end());
    for (const Value v : in) {
      if (const auto made = made_at_.find(v); made != made_at_.end()) first = std::max(first, (made->second + 1) / 2);
      if (const auto set = set_at_.find(v); set != set_at_.end() && set->second < last) return false;
    }
    std::vector<std::size_t> kept;    // nodes whose results others read too
    for (std::size_t p = 0; p < parts.parts.size(); ++p)
      for (const std::string& name : parts.parts[p].out) {
        const Value v = match.values.at(name);
        std::vector<std::size_t> outside;
        if (const auto read = read_at_.find(v); read != read_at_.end())
          std::copy_if(read->second.begin(), read->second.end(), std::back_inserter(outside), std::not_fn(matched));
        if (std::find(out.begin(), out.end(), v) != out.end()) {
          for (const std::size_t position : outside) last = std::min(last, (position - 1) / 2);
        } else if (!outside.empty() || read_elsewhere_.contains(v)) {
          const auto of_operands = [&](const std::string& operand) {
            return std::find(fused.operands.begin(), fused.operands.end(), operand) != fused.operands.end();
          };
          if (!std::all_of(parts.parts[p].in.begin(), parts.parts[p].in.end(), of_operands)) return false;
          kept.push_back(*match.node[p]);
        }
      }
    if (first > last) return false;
    write(fused, std::move(in), std::move(out), std::move(attrs), match, kept, last);
    return true;
  }

  bool same_types(const OpDef& fused, const Attrs& attrs, const Values& in, const Values& out) const {
    try {
      const std::vector<Type> types = infer(fused, attrs, graph_.types(in));
      for (std::size_t o = 0; o < out.size(); ++o) {
        const Type& type = graph_.type(out[o]);
        if (types[o].dtype != type.dtype || types[o].shape != type.shape || types[o].routed != type.routed) return false;
      }
    } catch (const UserError&) {    // its rule takes no such dims
      return false;
    }
    return true;
  }

  void write(const OpDef& fused, Values in, Values out, Attrs attrs, const Match& match, const std::vector<std::size_t>& kept,
             std::size_t in_front_of) {
    std::string note;
    for (const auto& n : match.node) {
      if (std::find(kept.begin(), kept.end(), *n) != kept.end()) continue;
      gone_[*n] = true;
      if (!nodes_[*n].note.empty()) note += (note.empty() ? "" : ", ") + nodes_[*n].note;
      for (const Value v : nodes_[*n].in) std::erase(read_at_[v], position_of(*n));
    }
    for (const Value v : in) read_at_[v].push_back(2 * in_front_of);
    for (const Value v : out) made_at_[v] = 2 * in_front_of;
    before_[in_front_of].push_back({&fused, std::move(in), std::move(out), std::move(attrs), std::move(note)});
  }

  Graph& graph_;
  Segment segment_;
  std::vector<Node> nodes_;
  std::vector<bool> gone_;
  std::vector<std::vector<Node>> before_;                // fused nodes, by the node that they stand in front of
  std::map<Value, std::size_t> made_at_;                 // position
  std::map<Value, std::vector<std::size_t>> read_at_;    // positions
  std::map<Value, std::size_t> set_at_;                  // node
  std::set<Value> read_elsewhere_;
};

}    // namespace

Graph fuse(Graph graph, const Options&) {
  for (const Segment segment : {Segment::first, Segment::rest}) Fusion(graph, segment).run();
  return remove_dead(std::move(graph), {});    // parts that were kept for readers which are fused by now
}

}    // namespace sheaf
