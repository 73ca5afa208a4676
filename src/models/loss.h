#pragma once
// From logits to the loss of a step.
#include "models/decoder.h"

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

// The load-balancing loss of a micro-batch (Fedus et al. 2021): with R rows, one for each token in each layer,
//   coef E sum over e of (how often e is counted / R) (sum of its probabilities / R)
// over all layers and tokens together. A scalar; no gradient flows through the counts. Absent where the model has none.
Value write_aux_loss(Builder& b, const ModelConfig& config, const ModelValues& values);

// Of a step, for the host to read after it: set @expert_load, fp32 [l, e], how many tokens each routed layer sent to each expert. A layer's
// correction bias has the sum of its own as attribute `load`: a name.
inline constexpr const char* kExpertLoad = "expert_load";
void write_expert_load(Builder& b, const ModelValues& values);

// Instead of a mean: set @score.nll, fp32 [b, s], for the host to read after the step.
inline constexpr const char* kScores = "score.nll";
void write_scores(Builder& b, Value nll_bs);

}    // namespace sheaf
