// join_products: products that share an operand or are added up become one node, which a device may run as one product where operands and
// results lie side by side (passes/columns.h).
//
// On entry: local (L3), fused.
// On exit:  the values that are left are what they were, but for the rounding between products that are added up.
//
//   %1 = einsum %x, @gate                             %1, %2 = einsum_each %x, @gate, @up
//   %2 = einsum %x, @up                 becomes
//   %5 = einsum %dgate, @gate
//   %6 = einsum_add %5, %dup, @up                     %6 = einsum_sum %dgate, @gate, %dup, @up
#include <algorithm>
#include <map>
#include <set>

#include "base/text.h"
#include "ops/contraction.h"
#include "ops/op_table.h"
#include "passes/pass.h"

namespace sheaf {
namespace {

Rule::Factors joined(Rule::Factors a, const Rule::Factors& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Tokens [b, s, ..] times a weight: rows of x, which are whole lines, with rows or columns of y, and the result lies as it comes.
bool is_of_tokens(const std::string& rule) {
  const Contraction& c = contraction(rule);
  return c.batch.empty() && c.m.size() == 2 && !c.n.empty() && !c.k.empty() && c.x_only.empty() && c.y_only.empty() &&
         c.x == joined(c.m, c.k) && c.out == joined(c.m, c.n) && (c.y == joined(c.n, c.k) || c.y == joined(c.k, c.n));
}

class Joiner {
 public:
  Joiner(Graph& graph, Segment segment) : graph_(graph), nodes_(graph.nodes(segment)), gone_(nodes_.size()), at_(nodes_.size()) {
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      for (const Value v : nodes_[n].out) made_[v] = n;
      for (const Value v : nodes_[n].in)
        if (v) readers_[v].push_back(n);
    }
    for (const Segment other : kSegments)
      if (other != segment)
        for (const Node& node : graph.nodes(other)) read_elsewhere_.insert(node.in.begin(), node.in.end());
  }

  void run() {
    for (std::size_t n = 0; n < nodes_.size(); ++n) each(n);
    for (std::size_t n = nodes_.size(); n-- > 0;) sum(n);
    std::vector<Node> out;
    for (std::size_t n = 0; n < nodes_.size(); ++n)
      if (at_[n])
        out.push_back(std::move(*at_[n]));
      else if (!gone_[n])
        out.push_back(std::move(nodes_[n]));
    nodes_ = std::move(out);
  }

 private:
  bool is_product(std::size_t n, OpId id) const {
    const Node& node = nodes_[n];
    if (node.op != &op(id) || gone_[n]) return false;
    const auto fits = [&](Value v) { return v && graph_.type(v).dtype == graph_.type(node.out[0]).dtype; };
    return std::all_of(node.in.begin(), node.in.end(), fits) && is_of_tokens(node.attrs.text("rule"));
  }
  Rule rule(std::size_t n) const { return Rule::parse(nodes_[n].attrs.text("rule")); }
  bool is_made_before(Value v, std::size_t n) const {
    const auto made = made_.find(v);
    return made == made_.end() || made->second < n;
  }

  // Products of one x that follow one another, with nothing but moves between them.
  void each(std::size_t first) {
    if (!is_product(first, OpId::einsum)) return;
    std::vector<std::size_t> members = {first};
    for (std::size_t n = first + 1; n < nodes_.size(); ++n) {
      if (is_move(*nodes_[n].op)) continue;
      if (!is_product(n, OpId::einsum) || nodes_[n].in[0] != nodes_[first].in[0] || rule(n).in[0] != rule(first).in[0]) break;
      if (is_made_before(nodes_[n].in[1], first)) members.push_back(n);
    }
    if (members.size() < 2) return;
    in_order_of_weights(members);
    Node node{.op = &op(OpId::einsum_each), .in = {nodes_[first].in[0]}, .out = {}, .attrs = {}, .note = ""};
    for (const std::size_t n : members) node.in.push_back(nodes_[n].in[1]), node.out.push_back(nodes_[n].out[0]);
    replace(members, std::move(node), first);
  }

  // A chain of sums that ends at `last`: nothing else reads what is between.
  void sum(std::size_t last) {
    if (!is_product(last, OpId::einsum_add)) return;
    std::vector<std::size_t> members;
    std::size_t n = last;
    while (is_product(n, OpId::einsum_add) && rule(n).out == rule(last).out) {
      members.push_back(n);
      const Value sum = nodes_[n].in[0];
      const auto made = made_.find(sum);
      if (made == made_.end() || readers_[sum].size() > 1 || read_elsewhere_.contains(sum)) return;
      n = made->second;
    }
    if (!is_product(n, OpId::einsum) || rule(n).out != rule(last).out) return;
    members.push_back(n);
    in_order_of_weights(members);
    Node node{.op = &op(OpId::einsum_sum), .in = {}, .out = nodes_[last].out, .attrs = {}, .note = ""};
    for (const std::size_t n : members) node.in.insert(node.in.end(), nodes_[n].in.end() - 2, nodes_[n].in.end());
    replace(members, std::move(node), last);
  }

  // As states are declared: so both nodes have them as they are stored, and sums do not depend on when which weight is gathered.
  void in_order_of_weights(std::vector<std::size_t>& members) const {
    std::sort(members.begin(), members.end(),
              [&](std::size_t a, std::size_t b) { return origin(nodes_[a].in.back()) < origin(nodes_[b].in.back()); });
  }
  // What v is a copy of, elsewhere.
  Value origin(Value v) const {
    for (auto made = made_.find(v); made != made_.end() && is_move(*nodes_[made->second].op); made = made_.find(v)) {
      const Node& move = nodes_[made->second];
      v = move.in[static_cast<std::size_t>(std::find(move.out.begin(), move.out.end(), v) - move.out.begin())];
    }
    return v;
  }

  void replace(const std::vector<std::size_t>& members, Node node, std::size_t position) {
    std::vector<std::string> rules, notes;
    for (const std::size_t n : members) {
      gone_[n] = true;
      rules.push_back(nodes_[n].attrs.text("rule"));
      if (!nodes_[n].note.empty()) notes.push_back(nodes_[n].note);
    }
    node.attrs = {{"rule", Text(join(rules, " | "))}, {"dtype", Text("same")}};
    node.note = join(notes, ", ");
    at_[position] = std::move(node);
  }

  Graph& graph_;
  std::vector<Node>& nodes_;
  std::vector<bool> gone_;
  std::vector<std::optional<Node>> at_;    // what stands in place of a node
  std::map<Value, std::size_t> made_;
  std::map<Value, std::vector<std::size_t>> readers_;
  std::set<Value> read_elsewhere_;
};

}    // namespace

Graph join_products(Graph graph, const Options&) {
  for (const Segment segment : {Segment::first, Segment::rest}) Joiner(graph, segment).run();
  return graph;
}

}    // namespace sheaf
