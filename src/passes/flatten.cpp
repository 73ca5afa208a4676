// flatten: a run of equal elementwise nodes in the epilogue becomes one node over flat storage: the norm, the clipping, AdamW and the
// rewrite of derived states are one kernel per group of states (same dtype and attributes), never one per tensor.
//
//   %1 = sumsq @a.grad                                  %1 = pack @a.grad, @b.grad {extent=64}
//   %2 = sumsq @b.grad                     becomes      %2 = sumsq %1
//   %3 = add_n %1, %2                                   %3 = add_n %2
//
// On entry: nodes that are to be joined stand side by side, as optimize writes them and bucket keeps them.
//
// A value is a member of at most one pack: what is already packed with the same companions in the same order is used again. On a mesh a
// pack holds what lies on one rank, and has as many elements as on the rank that holds most. What a collective writes into a state, or
// reads, stays on its own: then it moves without a copy. States are grouped with those to which the same nodes are done, from the first
// node on (parameters that ZeRO-3 keeps whole, beside those that it cuts; weights kept in fp32, beside those with a copy in bf16): a group
// has the same members in every node. Weights of one product (einsum_each) stay together, one after the other.
#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "ops/op_table.h"
#include "ops/pack_layout.h"
#include "passes/pass.h"

namespace sheaf {
namespace {

// A node's operands that are tensors of its group (their rule letter is `..`), against scalars, which all nodes of a group share.
bool is_member_operand(const OpDef& op, std::size_t i) { return !Rule::parse(op.rule).in[i].empty(); }

std::string key_of(const Graph& graph, const Node& node) {
  std::string key = fmt::format("{}{}", node.op->name, print(node.attrs));
  for (const Value v : node.out)
    if (graph.type(v).shape.empty()) key += print(graph.type(v).placement, graph.mesh, 0);    // what a sum is partial over
  for (std::size_t i = 0; i < node.in.size(); ++i)
    if (is_member_operand(*node.op, i))    // what lives across steps and what does not lie in different blocks
      key += fmt::format(" {}{}", name(graph.type(node.in[i]).dtype), graph[node.in[i]].kind == ValueKind::result ? "" : "@");
    else
      key += fmt::format(" %{}", node.in[i].id);
  return key;
}

bool can_join(const Node& node) {
  if (node.op->name == "add_n" || node.op->name == "pack" || is_move(*node.op) || !is_elementwise(*node.op)) return false;
  for (std::size_t i = 0; i < node.in.size(); ++i)
    if (is_member_operand(*node.op, i)) return true;
  return false;
}

// Of a pack: one that is larger fills the device as well in two, and gradients of a pack take their place with the first of them.
constexpr std::int64_t kMostElements = std::int64_t{1} << 26;

class Flatten {
 public:
  explicit Flatten(Graph& graph) : graph_(graph) {}

  void run() {
    const std::vector<Node> nodes = std::move(graph_.nodes(Segment::epilogue));
    for (const Node& node : nodes)
      if (is_move(*node.op)) moved_from_.insert(node.in.begin(), node.in.end()), moved_to_.insert(node.out.begin(), node.out.end());
    tie(nodes);
    for (const Segment body : {Segment::first, Segment::rest})
      for (const Node& node : graph_.nodes(body))
        if (node.op == &op(OpId::einsum_each)) remember_product({node.in.begin() + 1, node.in.end()});
    for (std::size_t begin = 0, end = 0; begin < nodes.size(); begin = end) {
      std::set<Value> made(nodes[begin].out.begin(), nodes[begin].out.end());
      const auto reads_one = [&](const Node& node) {
        return std::any_of(node.in.begin(), node.in.end(), [&](Value v) { return made.contains(v); });
      };
      for (end = begin + 1; end < nodes.size() && can_join(nodes[begin]) && nodes[end].op == nodes[begin].op && !reads_one(nodes[end]);
           ++end)
        made.insert(nodes[end].out.begin(), nodes[end].out.end());
      run_of({nodes.begin() + static_cast<std::ptrdiff_t>(begin), nodes.begin() + static_cast<std::ptrdiff_t>(end)});
    }
    graph_.nodes(Segment::epilogue) = std::move(out_);
  }

 private:
  struct Product {
    Value first;                  // its first weight; absent: the tensor is of no product of several
    std::int64_t elements = 0;    // of all its weights
  };

  bool is_tensor_op(const Node& node) const {
    return can_join(node) && std::any_of(node.in.begin(), node.in.end(), [&](Value v) { return v && !graph_.type(v).shape.empty(); });
  }
  bool joins(const Node& node) const { return is_tensor_op(node) && !stays_alone(node); }

  // Values that elementwise nodes tie to one another: the gradient, weight and moments of one state, and what is made of them.
  Value tied(Value v) {
    const auto found = tied_.find(v);
    return found == tied_.end() || found->second == v ? v : found->second = tied(found->second);
  }
  void tie(const std::vector<Node>& nodes) {
    for (const Node& node : nodes) {
      if (!is_tensor_op(node)) continue;
      Value first;
      for (const Values* values : {&node.in, &node.out})
        for (const Value v : *values) {
          if (!v || graph_.type(v).shape.empty()) continue;
          if (first)
            tied_[tied(v)] = tied(first);
          else
            first = v, tied_.emplace(v, v);
        }
    }
    for (const Node& node : nodes)
      if (is_tensor_op(node)) nodes_of_[tied(a_tensor_of(node))] += fmt::format("{}{} ", node.op->name, stays_alone(node) ? " alone" : "");
  }
  void remember_product(const Values& weights) {
    Product product{weights[0]};
    for (const Value w : weights) {
      if (graph_[w].kind != ValueKind::state || !tied_.contains(w)) return;
      product.elements += graph_.local_elements(w);
    }
    for (const Value w : weights) products_.emplace(tied(w), product);
  }
  Product product_of(const Node& node) {
    const auto found = products_.find(tied(a_tensor_of(node)));
    return found == products_.end() ? Product{{}, graph_.local_elements(a_tensor_of(node))} : found->second;
  }
  Value a_tensor_of(const Node& node) const {
    return *std::find_if(node.in.begin(), node.in.end(), [&](Value v) { return v && !graph_.type(v).shape.empty(); });
  }

  // Nodes of one op, one after the other and none of the other's result, in groups: the same call, and operands of the same packs.
  void run_of(const std::vector<Node>& nodes) {
    struct Group {
      std::string key;
      std::vector<Node> members;
      std::vector<Value> products;    // of each member
      std::int64_t elements;          // of members, and of those that will join them
    };
    std::vector<Group> groups;
    for (const Node& node : nodes) {
      std::string key = fmt::format("alone {}", groups.size());
      if (joins(node)) {
        key = key_of(graph_, node) + " of " + nodes_of_.at(tied(a_tensor_of(node)));
        for (std::size_t i = 0; i < node.in.size(); ++i)
          if (is_member_operand(*node.op, i)) key += fmt::format(" in {}", pack_id(node.in[i]));
      }
      const Product product = joins(node) ? product_of(node) : Product{};
      const auto last = std::find_if(groups.rbegin(), groups.rend(), [&](const Group& g) { return g.key == key; });
      if (last == groups.rend()) {
        groups.push_back({key, {node}, {product.first}, product.elements});
        continue;
      }
      const auto beside = product.first ? std::find(last->products.rbegin(), last->products.rend(), product.first) : last->products.rend();
      if (beside != last->products.rend()) {
        const auto behind = last->products.rend() - beside;
        last->members.insert(last->members.begin() + behind, node);
        last->products.insert(last->products.begin() + behind, product.first);
      } else if (last->elements + product.elements > kMostElements) {
        groups.push_back({key, {node}, {product.first}, product.elements});
      } else {
        last->members.push_back(node);
        last->products.push_back(product.first);
        last->elements += product.elements;
      }
    }
    for (const auto& [key, members, products, elements] : groups) {
      if (members.size() > 1) {
        join(members);
        continue;
      }
      // Alone here means alone in all that follows: what lies in no pack now must not come to lie beside others.
      for (const Values* values : {&members[0].in, &members[0].out})
        for (const Value v : *values)
          if (joins(members[0])) pack_id_.emplace(v, v.id);
      keep(members[0]);
    }
  }
  bool stays_alone(const Node& node) const {
    if (node.op->name == "set") return moved_to_.contains(node.in[1]);
    return std::any_of(node.out.begin(), node.out.end(), [&](Value v) { return moved_from_.contains(v) && !graph_.type(v).shape.empty(); });
  }
  int pack_id(Value v) const {
    const auto found = pack_id_.find(v);
    return found == pack_id_.end() ? -1 : found->second;
  }
  void remember(const Values& members, Value pack) {
    for (const Value v : members) SHEAF_CHECK(pack_id_.emplace(v, pack.id).second, "flatten: {} would be in two packs", name_of(graph_, v));
    packs_[members] = pack;
  }

  // A scalar result of a group (a sum over all members) stands for all of its members' results: it is named once.
  void keep(Node node) {
    Values in;
    for (const Value v : node.in) {
      const auto found = v ? scalar_.find(v) : scalar_.end();
      const Value use = found == scalar_.end() ? v : found->second;
      if (found == scalar_.end() || std::find(in.begin(), in.end(), use) == in.end()) in.push_back(use);
    }
    node.in = std::move(in);
    // What is done to the sum of a group is done once.
    if (is_move(*node.op) && node.in.size() == 1 && graph_.type(node.in[0]).shape.empty()) {
      const auto [entry, fresh] = moves_.emplace(
          fmt::format("{} {} {}", node.op->name, node.in[0].id, print(graph_.type(node.out[0]).placement, graph_.mesh, 0)), node.out[0]);
      if (!fresh) {
        scalar_[node.out[0]] = entry->second;
        return;
      }
    }
    out_.push_back(std::move(node));
  }

  // The pack of these values; made on first use.
  Value pack_of(const Values& members) {
    if (const auto found = packs_.find(members); found != packs_.end()) return found->second;
    std::int64_t extent = 0;
    for (const Value v : members) extent += packed_extent(graph_.local_elements(v));
    out_.push_back(graph_.make_node(op(OpId::pack), members, {{"extent", Int(extent)}}));
    remember(members, out_.back().out[0]);
    return out_.back().out[0];
  }

  void join(const std::vector<Node>& members) {
    const Node& model = members[0];
    Values in;
    for (std::size_t i = 0; i < model.in.size(); ++i) {
      if (!is_member_operand(*model.op, i)) {
        in.push_back(model.in[i]);
        continue;
      }
      Values values;
      for (const Node& member : members) values.push_back(member.in[i]);
      in.push_back(pack_of(values));
    }
    Node node = graph_.make_node(*model.op, in, model.attrs, fmt::format("{} tensors", members.size()));
    const Rule rule = Rule::parse(model.op->rule);
    for (std::size_t o = 0; o < node.out.size(); ++o) {
      Values values;
      for (const Node& member : members) values.push_back(member.out[o]);
      if (!rule.out[o].empty()) {
        remember(values, node.out[o]);
      } else {
        SHEAF_CHECK(model.op->name == "sumsq", "flatten: {} yields a scalar that is not a sum over its members", model.op->name);
        for (const Value v : values) scalar_[v] = node.out[o];
        graph_[node.out[o]].type.placement = graph_.type(values[0]).placement;
      }
    }
    out_.push_back(std::move(node));
  }

  Graph& graph_;
  std::vector<Node> out_;
  std::map<Values, Value> packs_;
  std::map<Value, int> pack_id_;    // member -> its pack
  std::map<Value, Value> scalar_;
  std::map<std::string, Value> moves_;
  std::map<Value, Value> tied_;              // towards the value that stands for all that are tied
  std::map<Value, std::string> nodes_of_;    // of those: what is done to them
  std::map<Value, Product> products_;        // of those
  std::set<Value> moved_from_, moved_to_;    // operands and results of collectives in the epilogue
};

}    // namespace

Graph flatten(Graph graph, const Options&) {
  Flatten(graph).run();
  return graph;
}

}    // namespace sheaf
