#pragma once
// From logits to the loss of a step.
#include "ops/builder.h"

namespace sheaf {

// Cross-entropy of every position, fp32 [b, s]: labels[b, s] is the token that a position predicts, already shifted; < 0 does not count.
// Made of pieces that let the vocabulary be sharded.
Value token_nll(Builder& b, Value logits_bsv, Value labels_bs);

// Writes the rest of the loss, a mean over the labels that count in the whole step:
//   body      accumulate @loss_sum, sum of nll
//   prologue  set @seed, 1 / (labels that count)     what the backward starts from: d loss / d loss_sum
//   epilogue  set @metric.tokens, that count
// Needs the input @labels.
void write_mean_loss(Builder& b, Value nll_bs);

// Instead of a mean: set @score.nll, fp32 [b, s], for the host to read after the step.
inline constexpr const char* kScores = "score.nll";
void write_scores(Builder& b, Value nll_bs);

}    // namespace sheaf
