#include "models/loss.h"

#include "base/error.h"

namespace sheaf {

Value token_nll(Builder& b, Value logits_bsv, Value labels_bs) {
  const Value max = b.row_max(logits_bsv), sum = b.sum_exp(logits_bsv, max), picked = b.pick(logits_bsv, labels_bs);
  return b.nll(max, sum, picked, labels_bs);
}

void write_mean_loss(Builder& b, Value nll_bs) {
  b.step_sum("loss_sum", b.einsum("b s -> ()", nll_bs));
  const Segment body = b.segment();
  b.in(Segment::prologue);
  const Value labels = b.graph().find("labels");
  SHEAF_CHECK(labels, "the graph has no input @labels");
  const Value count = b.count_labels(labels);
  b.set(b.graph().declare(ValueKind::carried, "seed", {DType::fp32, {}, {}}), b.inverse_count(count));
  b.in(Segment::epilogue);
  b.metric("tokens", count);
  b.in(body);
}

Value write_aux_loss(Builder& b, const ModelConfig& config, const ModelValues& values) {
  if (values.routed.empty() || config.moe->aux_coef == 0) return {};
  Value probabilities_e, counted_e;
  const auto add = [&](Value& sum, Value term) { sum = sum ? b.add(sum, term).front() : term; };
  for (const MoeValues& layer : values.routed) {
    add(probabilities_e, b.einsum("b s e -> e", layer.probabilities_bse));
    add(counted_e, layer.counted_e);
  }
  const Shape& shape = b.type(values.routed.front().probabilities_bse).shape;
  const double rows = static_cast<double>(values.routed.size()) * static_cast<double>(shape[0] * shape[1]);
  return b.scale(b.einsum("e, e -> ()", probabilities_e, counted_e),
                 config.moe->aux_coef * static_cast<double>(config.moe->experts) / (rows * rows));
}

void write_expert_load(Builder& b, const ModelValues& values) {
  if (values.routed.empty()) return;
  Values sums;
  for (const MoeValues& layer : values.routed) {
    const std::string name = layer.name + "load";
    sums.push_back(b.step_sum(name, layer.load_e));
    if (layer.correction_bias) b.graph()[layer.correction_bias].attrs.set("load", name);
  }
  const Segment body = b.segment();
  b.in(Segment::epilogue);
  const Value all_le = b.stack(sums);
  b.set(b.graph().declare(ValueKind::state, kExpertLoad, b.type(all_le)), all_le);
  b.in(body);
}

void write_scores(Builder& b, Value nll_bs) {
  const Segment body = b.segment();
  const Value scores = b.graph().declare(ValueKind::state, kScores, b.type(nll_bs), {{"dims", Text("b s")}});
  b.in(Segment::epilogue);
  b.set(scores, nll_bs);
  b.in(body);
}

}    // namespace sheaf
