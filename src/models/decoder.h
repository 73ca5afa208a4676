#pragma once
// The decoder: pre-norm blocks of attention and an MLP, or experts in its place. One template for all families; they differ by flags.
#include "models/model_config.h"
#include "ops/builder.h"

namespace sheaf {

// Of one micro-batch.
struct ModelShape {
  std::int64_t rows = 1, seq_len = 1;
  std::int64_t documents = 0;    // most of a row; > 0: attention stays inside each, the input @document_ends [b, c] holds where they end
};

// What a routed MLP yields.
struct MoeValues {
  std::string name;    // of its states, up to the last dot
  Value out_bsk;
  Value chosen_bsk;         // i32: the experts that each token goes to
  Value load_e;             // fp32: how many tokens go to each
  Value correction_bias;    // the state that is added to the scores to choose by; absent: none
  // What the auxiliary loss is made of; absent if there is none.
  Value probabilities_bse;    // fp32: softmax of the router's logits
  Value counted_e;            // fp32: how often each expert is among a token's most probable
};

// Values of the body that tests and losses read.
struct ModelValues {
  Value logits;                     // fp32 [b, s, v]
  Value nll;                        // fp32 [b, s], 0 where the label does not count
  std::vector<MoeValues> routed;    // of each layer with experts
};

// Writes the forward body, up to the loss of every token. Inputs, i32 [b, s]: @ids, @labels (shifted: labels[i] is the token that position
// i predicts; < 0 does not count), @positions. States have the names that HF has in memory; dims are split, never merged:
//   q_proj [hk, r, d, H]   k_proj, v_proj [hk, d, H]   o_proj [H, hk, r, d]   gate, up [I, H]   down [H, I]   embedding, head [V, H]
//   experts: ExpertLayout
// A state whose dims are split has its shape in HF's file as attribute file_shape, "[128 64]"; a `zero_row` starts as zeros; `dims` of the
// states of experts name their letters.
ModelValues build_decoder(Builder& b, const ModelConfig& config, const ModelShape& shape);

}    // namespace sheaf
