// differentiate: adds the backward of the step's loss to the body.
//
// On entry: the body (segment first) ends in `accumulate @loss_sum, %l`; the prologue defines @seed's value: the derivative of the reported
//           loss with respect to that sum, 1 / (valid tokens of the whole step). Where there is an `accumulate @aux_sum, %a`, the mean of
//           it over the micro-batches is a part of the loss. No mesh, no placement.
// On exit:  every trainable state @w that the loss depends on has a carried value @w.grad and a node `accumulate @w.grad, %g`, in fp32
//           for low-precision compute, right behind the node that makes %g: so a gradient that is added to what is there, or cut (ZeRO-2),
//           need not wait for the others. Nothing else changed.
//
//   %2 = einsum %1, @w {b k, n k -> b n}        becomes, with %5 the gradient of %2,   the same and
//                                               %6 = einsum %5, %1 {b n, b k -> n k; dtype=fp32}
//                                               accumulate @w.grad, %6
#include <algorithm>
#include <map>

#include "base/error.h"
#include "ops/builder.h"
#include "passes/pass.h"

namespace sheaf {
namespace {

// @w for @w and for its derived @w.c.
std::string master_name(const ValueInfo& state) { return state.attrs.has("of") ? state.attrs.text("of") : state.name; }

bool is_trainable(const Graph& graph, Value v) {
  if (graph[v].kind != ValueKind::state) return false;
  const ValueInfo& master = graph[graph.find(master_name(graph[v]))];
  return master.attrs.has("trainable") && master.attrs.flag("trainable");
}

// Invariant: sum_[v] is the sum of all contributions emitted so far; when the walk (in reverse program order) reaches v's node, every
// reader of v has been visited, so the sum is complete.
class Backward {
 public:
  Backward(Graph& graph) : graph_(graph), b_(graph, Segment::first) {}

  void run() {
    const std::vector<Node> forward = graph_.nodes(Segment::first);
    mark_needed(forward);
    const Value loss = graph_.find("loss_sum"), seed = graph_.find("seed"), aux = graph_.find("aux_sum");
    if (!loss || !seed) user_error("differentiate: the graph has no @loss_sum and @seed");
    const Value aux_seed = aux ? b_.argument(kMicroBatchShare) : Value{};
    for (auto node = forward.rbegin(); node != forward.rend(); ++node) {
      if (node->op->name == "accumulate") {
        if (node->in[0] == loss || node->in[0] == aux) contribute(node->in[1], node->in[0] == loss ? seed : aux_seed);
        continue;
      }
      visit(*node);
    }
    for (const auto& [state, gradient] : gradients_of_states()) {
      const Value carried = graph_.declare(ValueKind::carried, master_name(graph_[state]) + ".grad", graph_.type(gradient));
      b_.accumulate(carried, gradient);
    }
    accumulate_at_once();
  }

 private:
  void mark_needed(const std::vector<Node>& forward) {
    needed_.resize(graph_.values.size());
    for (std::size_t i = 0; i < needed_.size(); ++i) needed_[i] = is_trainable(graph_, {static_cast<int>(i)});
    for (const Node& node : forward) {
      const bool any = std::any_of(node.in.begin(), node.in.end(), [&](Value v) { return v && needed_[static_cast<std::size_t>(v.id)]; });
      for (const Value v : node.out) needed_[static_cast<std::size_t>(v.id)] = any && is_float(graph_.type(v).dtype);
    }
  }

  void accumulate_at_once() {
    std::vector<Node>& nodes = graph_.nodes(Segment::first);
    std::map<Value, std::vector<Node>> waiting;    // for what they accumulate
    for (const Node& node : nodes)
      if (node.op->name == "accumulate") waiting[node.in[1]].push_back(node);
    std::vector<Node> out;
    for (Node& node : nodes) {
      if (node.op->name == "accumulate") continue;
      const Values made = node.out;
      out.push_back(std::move(node));
      for (const Value v : made)
        if (const auto found = waiting.find(v); found != waiting.end()) out.insert(out.end(), found->second.begin(), found->second.end());
    }
    nodes = std::move(out);
  }

  void visit(const Node& node) {
    Values dout(node.out.size());
    bool any = false;
    for (std::size_t o = 0; o < std::min(node.out.size(), node.op->grad_outputs); ++o) {
      const auto found = sum_.find(node.out[o]);
      if (found != sum_.end()) dout[o] = found->second, any = true;
    }
    std::vector<bool> wanted;
    for (const Value v : node.in) wanted.push_back(v && needed_[static_cast<std::size_t>(v.id)]);
    if (!any || std::none_of(wanted.begin(), wanted.end(), [](bool w) { return w; })) return;
    if (!node.op->grad) {
      SHEAF_CHECK(!node.op->no_gradient.empty(), "differentiate: {} has no gradient", node.op->name);
      return;
    }
    const Values d = node.op->grad(Grad{b_, node.in, node.out, dout, node.attrs, wanted});
    for (std::size_t i = 0; i < d.size(); ++i)
      if (d[i] && wanted[i]) contribute(node.in[i], d[i]);
  }

  // Sums in the wider of the two dtypes; what an op of the backward then reads has the dtype of the value itself.
  void contribute(Value v, Value d) {
    const bool state = graph_[v].kind == ValueKind::state;
    const DType wanted = state && size_bytes(graph_.type(v).dtype) == 2 ? DType::fp32 : graph_.type(v).dtype;
    if (graph_.type(d).dtype != wanted) d = b_.cast(d, Text(name(wanted)));
    const auto [entry, fresh] = sum_.emplace(v, d);
    if (fresh) {
      if (state) states_.push_back(v);
    } else {
      entry->second = b_.add(entry->second, d);
    }
  }

  std::vector<std::pair<Value, Value>> gradients_of_states() {
    std::vector<std::pair<Value, Value>> out;
    std::sort(states_.begin(), states_.end());    // in order of declaration: the order in which states and gradients are stored
    for (const Value v : states_) out.emplace_back(v, sum_.at(v));
    return out;
  }

  Graph& graph_;
  Builder b_;
  std::vector<bool> needed_;    // per value: does a trainable state reach it
  std::map<Value, Value> sum_;
  Values states_;
};

}    // namespace

Graph differentiate(Graph graph, const Options&) {
  Backward(graph).run();
  return graph;
}

}    // namespace sheaf
