#pragma once
// The dense decoder: pre-norm blocks of grouped-query attention and a gated MLP (llama, mistral, qwen2, qwen3).
#include "models/model_config.h"
#include "ops/builder.h"

namespace sheaf {

// Of one micro-batch.
struct ModelShape {
  std::int64_t rows = 1, seq_len = 1;
  std::int64_t documents = 0;    // most of a row; > 0: attention stays inside each, the input @document_ends [b, c] holds where they end
};

// Values of the body that tests and other losses read.
struct ModelValues {
  Value logits;    // fp32 [b, s, v]
  Value nll;       // fp32 [b, s], 0 where the label does not count
};

// Writes the forward body, up to the loss of every token. Inputs, i32 [b, s]: @ids, @labels (shifted: labels[i] is the token that position
// i predicts; < 0 does not count), @positions. States have HF's names; dims are split, never merged:
//   q_proj [hk, r, d, H]   k_proj, v_proj [hk, d, H]   o_proj [H, hk, r, d]   gate, up [I, H]   down [H, I]   embedding, head [V, H]
// A state whose dims are split has its shape in HF's file as attribute file_shape, "[128 64]"; a `zero_row` starts as zeros.
ModelValues build_dense(Builder& b, const DenseConfig& config, const ModelShape& shape);

}    // namespace sheaf
