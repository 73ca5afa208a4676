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

void write_scores(Builder& b, Value nll_bs) {
  const Segment body = b.segment();
  const Value scores = b.graph().declare(ValueKind::state, kScores, b.type(nll_bs), {{"dims", Text("b s")}});
  b.in(Segment::epilogue);
  b.set(scores, nll_bs);
  b.in(body);
}

}    // namespace sheaf
