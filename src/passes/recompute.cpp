// recompute: what the backward reads of the forward is computed again, in place of being kept.
//
// On entry: placed (L2); the body is differentiated. What depends on the derivative of the loss is the backward.
// On exit:  a value that the backward reads and that options.recompute gives up has a clone there, in front of its first reader. Clones
//           read what is kept, or other clones, so the numbers are the same bit for bit.
//             selective   ops that do little for each byte (norms, activations, rotations, dispatch), from what is kept anyway
//             block       all but what is noted `residual`: the sums of the residual stream
//           Behind options.recompute_blocks of these sums it is the next cheaper choice.
//           Decisions (integers) and rows that were sent to experts are never made twice.
//
//   %1 = rms_norm %0, @w.c                          %1 = rms_norm %0, @w.c
//   %2 = einsum %1, @u.c                            %2 = einsum %1, @u.c
//   ...                                  becomes    ...
//   %9 = einsum %8, %1                              %7 = rms_norm %0, @w.c      # again
//                                                   %9 = einsum %8, %7
#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "ops/builder.h"
#include "ops/op_table.h"
#include "passes/pass.h"

namespace sheaf {
namespace {

enum class GivenUp { none, selective, block };

class Recompute {
 public:
  // In the first `blocks` blocks, a step less behind them.
  Recompute(Graph& graph, GivenUp what, std::int64_t blocks) : graph_(graph), what_(what), blocks_(blocks) {}

  void run() {
    std::vector<Node> nodes = std::move(graph_.nodes(Segment::first));
    out_ = &graph_.nodes(Segment::first);
    out_->clear();
    const std::vector<bool> backward = find_backward(nodes);
    std::int64_t block = 0;
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      if (backward[n]) continue;
      for (const Value v : nodes[n].out) maker_[v] = &nodes[n];
      if (nodes[n].note == "residual") last_residual_ = &nodes[n], block += !is_move(*nodes[n].op);    // a sum may move when it is made
      if (blocks_ < 0 || block <= blocks_) deep_.insert(&nodes[n]);
    }
    for (std::size_t n = 0; n < nodes.size(); ++n)
      if (backward[n])
        for (const Value v : nodes[n].in)
          if (v && maker_.contains(v)) read_.insert(v);
    for (const auto& [v, node] : maker_) decide(v);
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      Node node = nodes[n];
      if (backward[n])
        for (Value& v : node.in)
          if (v) v = again(v);
      out_->push_back(std::move(node));
    }
  }

 private:
  std::vector<bool> find_backward(const std::vector<Node>& nodes) const {
    std::set<Value> of_loss;
    for (const Value v : {graph_.find("seed"), graph_.find(std::string("step.") + kMicroBatchShare)})
      if (v) of_loss.insert(v);
    std::vector<bool> backward;
    for (const Node& node : nodes) {
      backward.push_back(std::any_of(node.in.begin(), node.in.end(), [&](Value v) { return of_loss.contains(v); }));
      if (backward.back()) of_loss.insert(node.out.begin(), node.out.end());
    }
    return backward;
  }

  // May v be had again, from what is kept? What is read only by clones counts as given up as well.
  bool decide(Value v) {
    const auto maker = maker_.find(v);
    if (maker == maker_.end()) return false;    // states and inputs are there; what is not: no forward value
    const auto [entry, fresh] = given_up_.emplace(v, false);
    if (!fresh) return entry->second;
    const Node& node = *maker->second;
    if (!may_run_twice(node)) return false;
    const bool whole = what_for(node) == GivenUp::block;    // whatever it reads is kept or given up
    for (const Value x : node.in)
      if (x && maker_.contains(x) && !decide(x) && !whole && !read_.contains(x)) return false;
    return given_up_[v] = true;
  }
  GivenUp what_for(const Node& node) const {
    return deep_.contains(&node) ? what_ : what_ == GivenUp::block ? GivenUp::selective : GivenUp::none;
  }

  bool may_run_twice(const Node& node) const {
    // Behind the last sum of the residual stream is the head, whose backward comes at once.
    const GivenUp what = what_for(node);
    if (what == GivenUp::none || exchanges_rows(*node.op) || (last_residual_ && &node > last_residual_)) return false;
    for (const Value v : node.out)
      if (!is_float(graph_.type(v).dtype)) return false;
    if (what == GivenUp::block) return node.note != "residual";
    if (is_move(*node.op)) return false;
    constexpr std::int64_t kShrinks = 4;    // what it makes is not worth reading that much more
    std::int64_t made = 0, largest = 0;
    for (const Value v : node.out) made += graph_.type(v).bytes();
    for (const Value v : node.in)
      if (v && maker_.contains(v)) largest = std::max(largest, graph_.type(v).bytes());
    return !is_product(node) && made * kShrinks >= largest;
  }
  // Sums over a factor that its first operand shares with another: matrix products, attention.
  bool is_product(const Node& node) const {
    const Rule rule = rule_for(*node.op, node.attrs, graph_.types(node.in));
    return std::any_of(rule.in[0].begin(), rule.in[0].end(), [&](const std::string& f) {
      const auto it_has = [&](const Rule::Factors& factors) { return has(factors, f); };
      return std::any_of(rule.in.begin() + 1, rule.in.end(), it_has) && std::none_of(rule.out.begin(), rule.out.end(), it_has);
    });
  }

  // What the backward reads in place of v.
  Value again(Value v) {
    const auto found = given_up_.find(v);
    if (found == given_up_.end() || !found->second) return v;
    if (const auto clone = clone_.find(v); clone != clone_.end()) return clone->second;
    const Node& node = *maker_.at(v);
    Values in;
    for (const Value x : node.in) in.push_back(x ? again(x) : x);
    Node copy = graph_.make_node(*node.op, in, node.attrs, "again");
    for (std::size_t o = 0; o < node.out.size(); ++o) {
      graph_[copy.out[o]].type = graph_.type(node.out[o]);
      clone_[node.out[o]] = copy.out[o];
    }
    out_->push_back(std::move(copy));
    return clone_.at(v);
  }

  Graph& graph_;
  GivenUp what_;
  std::int64_t blocks_;
  std::set<const Node*> deep_;    // nodes of the first blocks
  std::vector<Node>* out_ = nullptr;
  std::map<Value, const Node*> maker_;    // of forward values
  const Node* last_residual_ = nullptr;
  std::set<Value> read_;    // forward values that the backward reads
  std::map<Value, bool> given_up_;
  std::map<Value, Value> clone_;
};

}    // namespace

Graph recompute(Graph graph, const Options& options) {
  const std::string& what = options.recompute;
  if (what != "none" && what != "selective" && what != "block")
    user_error("option recompute is {}; wanted none, selective or block", quote(what));
  if (what != "none") Recompute(graph, what == "block" ? GivenUp::block : GivenUp::selective, options.recompute_blocks).run();
  return graph;
}

}    // namespace sheaf
