#pragma once
// A HF config.json of a decoder, normalised: every family and every spelling ends in this one struct.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "models/rope.h"

namespace sheaf {

enum class Activation { silu, gelu, gelu_tanh, relu };

// Of q and k: over each head or over all of them before rope; over each head, without a weight, after it.
enum class QkNorm { none, head, all_heads, unweighted };

// What differs from layer to layer.
struct LayerConfig {
  std::int64_t window = 0;    // positions a query sees, itself included; 0: all before it
  bool chunked = false;       // attention stays inside chunks of `chunk` positions
  bool rotary = true;
  bool routed = false;    // experts in place of the MLP
};

// Multi-head latent attention (DeepSeek-AI 2024): q and k, v through low-rank latents. A head of q and k is [nope | rope] channels, the
// latter of k are one for all heads.
struct MlaConfig {
  std::int64_t q_rank = 0, kv_rank = 0;    // q_rank 0: q straight from the hidden state
  std::int64_t nope_dim = 0, rope_dim = 0, v_dim = 0;
};

// What experts are chosen by, and what they are weighted with.
enum class Router {
  softmax,           // probabilities over all experts, for both
  sigmoid,           // of each expert, for both
  chosen_softmax,    // chosen by the logits; a softmax over those of the chosen
  chosen_sigmoid     // chosen by the logits; the sigmoid of each
};

// Dims of the two expert weights, as HF has them in memory.
enum class ExpertLayout {
  out_in,      // [E, 2, M, H], [E, H, M]
  in_pairs,    // [E, H, M, 2], [E, M, H]: gate and up of a channel side by side
  in_halves    // [E, H, 2, M], [E, M, H]
};

struct MoeConfig {
  std::int64_t experts = 0, top_k = 0, intermediate = 0;
  Router router = Router::softmax;
  std::string router_name;     // "gate": the state mlp.gate.weight
  bool fp32_logits = false;    // computed in fp32 whatever the compute dtype; else in it
  bool fp32_router = false;    // and its weight is kept in fp32
  bool router_bias = false;
  std::string correction_bias;                                // state, below the MLP, that is added to the scores to choose by; "": none
  std::int64_t groups = 0, kept_groups = 0, group_top = 0;    // as choose_experts
  bool normalized = false;                                    // weights are divided by max(sum + norm_eps, norm_floor)
  double norm_eps = 0, norm_floor = 0;
  double weight_scale = 1;
  bool fp32_weights = false;    // weights stay in fp32; else in the compute dtype
  bool weighs_input = false;    // the weight multiplies what goes into an expert, not what comes out
  ExpertLayout layout = ExpertLayout::out_in;
  bool expert_bias = false;
  std::string activation;    // as the op gated
  double limit = 0;
  std::int64_t shared_intermediate = 0;    // of the MLP that every token passes; 0: none
  std::string shared_name;
  bool shared_gate = false;    // its output is multiplied by the sigmoid of a logit
  double aux_coef = 0;         // of the load-balancing loss; 0: off
};

struct ModelConfig {
  std::string model_type;
  std::int64_t vocab = 0, hidden = 0, intermediate = 0;    // intermediate: of a layer that is not routed
  std::vector<LayerConfig> layers;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;         // heads is a multiple of kv_heads; heads * head_dim need not be hidden
  std::int64_t v_dim = 0;                                     // head dim of v: head_dim but with MLA
  bool qkv_bias = false, o_bias = false, mlp_bias = false;    // with MLA qkv_bias is that of the two down-projections
  QkNorm qk_norm = QkNorm::none;
  double qkv_clip = 0;    // q, k and v are clamped to +- this; 0: not
  bool sinks = false;     // a logit per head that takes part in the softmax and has no value
  double softmax_scale = 1;
  std::int64_t chunk = 0;                // of chunked layers
  double temperature_scale = 0;          // of layers without rope: q (1 + scale ln(1 + floor((position + 1) / floor)));
  std::int64_t temperature_floor = 0;    // 0: off
  std::optional<MlaConfig> mla;
  std::optional<MoeConfig> moe;
  bool tied_head = false, head_bias = false;
  double rms_eps = 1e-6;
  bool fp32_norms = false;    // weights of norms are kept, and multiply, in fp32
  Activation activation = Activation::silu;
  RopeConfig rope;
  bool rope_interleaved = false;    // pairs are neighbours
  std::int64_t max_positions = 0;
  double initializer_range = 0.02;
  double attention_dropout = 0;
  std::optional<std::int64_t> padding_id;    // row of the embedding without gradient through the look-up; in [0, vocab)
  std::optional<std::int64_t> bos_id, eos_id;
  DType dtype = DType::fp32;    // of the weights on disk
  std::string mlp_name;         // "mlp": model.layers.0.mlp

  std::int64_t heads_per_kv() const { return heads / kv_heads; }
  std::int64_t rope_head_dim() const { return mla ? mla->rope_dim : head_dim; }
  std::int64_t routed_layers() const;
};

// Throws UserError naming `where`, the key, what was found and what is supported.
ModelConfig parse_model_config(const Json& config, const std::string& where = "config.json");
std::vector<std::string> supported_model_types();

// Of the matrices that a token is multiplied with: the experts that it goes to, the head, tied or not; the embedding's look-up does not
// count.
double matmul_parameters(const ModelConfig& config);
// Forward and backward, per token of a row of seq_len: 6 per matmul parameter and 6 heads (q's and v's head dim) per visible pair of
// positions.
double model_flops_per_token(const ModelConfig& config, std::int64_t seq_len);

}    // namespace sheaf
