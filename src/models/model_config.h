#pragma once
// A HF config.json of a dense decoder, normalised: every family and every spelling ends in this one struct.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "models/rope.h"

namespace sheaf {

enum class Activation { silu, gelu, gelu_tanh, relu };

struct DenseConfig {
  std::string model_type;
  std::int64_t vocab = 0, hidden = 0, intermediate = 0, layers = 0;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;    // heads is a multiple of kv_heads; heads * head_dim need not be hidden
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool qk_norm = false;    // RMS norm of q and k over head_dim, before rope
  bool tied_head = false;
  double rms_eps = 1e-6;
  Activation activation = Activation::silu;
  std::vector<std::int64_t> windows;    // per layer: positions a query sees, itself included; 0: all before it
  RopeConfig rope;
  std::int64_t max_positions = 0;
  double initializer_range = 0.02;
  double attention_dropout = 0;
  std::optional<std::int64_t> padding_id;    // row of the embedding without gradient through the look-up; in [0, vocab)
  std::optional<std::int64_t> bos_id, eos_id;
  DType dtype = DType::fp32;    // of the weights on disk

  std::int64_t heads_per_kv() const { return heads / kv_heads; }
};

// Throws UserError naming `where`, the key, what was found and what is supported.
DenseConfig parse_model_config(const Json& config, const std::string& where = "config.json");
std::vector<std::string> supported_model_types();

// Of the matrices that a token is multiplied with: the head counts, tied or not; the embedding's look-up does not.
double matmul_parameters(const DenseConfig& config);
// Forward and backward, per token of a row of seq_len: 6 per matmul parameter and 12 heads head_dim per visible pair of positions.
double model_flops_per_token(const DenseConfig& config, std::int64_t seq_len);

}    // namespace sheaf
