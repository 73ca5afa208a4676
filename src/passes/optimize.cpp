// optimize: adds the end of a training step, per state.
//
// On entry: @loss_sum, @seed; for each trainable @w a carried @w.grad.
// On exit:  the epilogue computes the loss, the global gradient norm, the clip factor and the commit flag, updates @w with moments @w.m and
//           @w.v by AdamW, rewrites derived states @w.c, corrects the biases of routers (attribute load) if options.balance_rate says
//           so, and sets @metric.loss, @metric.grad_norm, @metric.commit. Layer by layer, not state by state: each kind of node stands
//           in one run, which is what flatten joins.
#include "base/error.h"
#include "ops/builder.h"
#include "passes/pass.h"

namespace sheaf {

Graph optimize(Graph graph, const Options& options) {
  Builder b(graph, Segment::epilogue);
  Values weights, gradients;
  for (const Value w : graph.all(ValueKind::state))
    if (graph[w].attrs.has("trainable") && graph[w].attrs.flag("trainable")) {
      weights.push_back(w);
      gradients.push_back(graph.find(graph[w].name + ".grad"));
      if (!gradients.back()) user_error("optimize: trainable state @{} has no @{}.grad", graph[w].name, graph[w].name);
    }
  if (weights.empty()) user_error("optimize: the graph has no trainable state");
  if (!graph.find("loss_sum") || !graph.find("seed")) user_error("optimize: the graph has no @loss_sum and @seed");

  Value loss = b.mul(graph.find("loss_sum"), graph.find("seed"));
  if (const Value aux = graph.find("aux_sum")) {
    const Value mean = b.mul(aux, b.argument(kMicroBatchShare));
    b.metric("aux_loss", mean);
    loss = b.add(loss, mean);
  }
  Values squares;
  for (const Value g : gradients) squares.push_back(b.sumsq(g));
  const Value norm = b.square_root(b.add_n(squares));
  const Value factor = b.clip_factor(norm, options.clip), commit = b.finite(norm, loss);
  const Value lr = b.argument("lr"), beta1 = b.argument("beta1"), beta2 = b.argument("beta2"), bias1 = b.argument("bias1"),
              bias2 = b.argument("bias2");

  struct Update {
    Value target, value;
  };
  std::vector<Update> updates;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const Value w = weights[i];
    const auto moment = [&](const char* suffix) {
      Type type = graph.type(w);
      if (options.bf16_moments) type.dtype = DType::bf16;
      return graph.declare(ValueKind::state, graph[w].name + suffix, type, {{"init", Text("zeros")}, {"of", graph[w].name}});
    };
    const Value m = moment(".m"), v = moment(".v");
    const Results next = b.adamw(w, m, v, gradients[i], factor, commit, lr, beta1, beta2, bias1, bias2, options.eps, options.weight_decay,
                                 options.decoupled_decay);
    updates.insert(updates.end(), {{w, next[0]}, {m, next[1]}, {v, next[2]}});
  }
  // Grouped by role (all weights, all first moments, ...): runs that flatten can join.
  for (std::size_t role = 0; role < 3; ++role)
    for (std::size_t i = 0; i < weights.size(); ++i) b.set(updates[3 * i + role].target, updates[3 * i + role].value);
  // Behind its `set`, @w reads as the new weight.
  std::vector<Update> copies;
  for (const Value w : weights)
    if (const Value copy = graph.find(graph[w].name + ".c")) copies.push_back({copy, b.cast(w, Text(name(graph.type(copy).dtype)))});
  for (const Update& copy : copies) b.set(copy.target, copy.value);
  if (options.balance_rate > 0)    // without a loss (DeepSeek-AI 2024)
    for (const Value bias : graph.all(ValueKind::state))
      if (graph[bias].attrs.has("load"))
        b.update(bias, b.balance_bias(bias, graph.find(graph[bias].attrs.text("load")), options.balance_rate), commit);
  b.metric("loss", loss);
  b.metric("grad_norm", norm);
  b.metric("commit", commit);
  return graph;
}

}    // namespace sheaf
