// fuse_softmax_grad: the gradient of cross-entropy reaches the logits in two parts, each as large as the logits; one op writes their sum.
//
//   %3 = exp_weighted %x, %m, %ds
//   %4 = pick_grad %dp, %labels, %x        becomes      %5 = softmax_grad %x, %m, %ds, %dp, %labels
//   %5 = add %3, %4   (or add %4, %3)
#include <map>

#include "ops/op_table.h"
#include "passes/pass.h"

namespace sheaf {

Graph fuse_softmax_grad(Graph graph, const Options&) {
  for (auto& nodes : graph.segments) {
    std::map<Value, const Node*> producer;
    for (Node& node : nodes) {
      for (const Value v : node.out) producer[v] = &node;
      if (node.op->name != "add") continue;
      const auto made_by = [&](Value v, std::string_view op) {
        const auto found = producer.find(v);
        return found != producer.end() && found->second->op->name == op ? found->second : nullptr;
      };
      for (const auto& [x, y] : {std::pair(node.in[0], node.in[1]), std::pair(node.in[1], node.in[0])}) {
        const Node *exp = made_by(x, "exp_weighted"), *pick = made_by(y, "pick_grad");
        if (!exp || !pick || exp->in[0] != pick->in[2]) continue;
        node = {&op(OpId::softmax_grad),
                {exp->in[0], exp->in[1], exp->in[2], pick->in[0], pick->in[1]},
                node.out,
                {},
                "exp_weighted + pick_grad"};
        break;
      }
    }
  }
  return remove_dead(std::move(graph), {});    // the two parts, unless something else reads them
}

}    // namespace sheaf
