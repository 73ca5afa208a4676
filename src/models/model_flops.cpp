// Work of a model per token, from its configuration.
#include <algorithm>

#include "models/model_config.h"

namespace sheaf {
namespace {

double attention_parameters(const ModelConfig& c) {
  const auto h = static_cast<double>(c.hidden), q = static_cast<double>(c.heads * c.head_dim);
  if (!c.mla) return 2 * h * (q + static_cast<double>(c.kv_heads * c.head_dim));
  const MlaConfig& m = *c.mla;
  const auto of_heads = [&](std::int64_t dim) { return static_cast<double>(c.heads * dim); };
  const auto q_rank = static_cast<double>(m.q_rank), kv_rank = static_cast<double>(m.kv_rank);
  return (m.q_rank ? q_rank * (h + q) : h * q) + h * (kv_rank + static_cast<double>(m.rope_dim)) +
         kv_rank * of_heads(m.nope_dim + m.v_dim) + h * of_heads(m.v_dim);
}

double expert_parameters(const MoeConfig& m, std::int64_t hidden) {
  const std::int64_t per_hidden = m.experts + 3 * m.top_k * m.intermediate + 3 * m.shared_intermediate + (m.shared_gate ? 1 : 0);
  return static_cast<double>(hidden) * static_cast<double>(per_hidden);
}

// Keys that a query sees, on average over a row of s.
double visible(const LayerConfig& layer, std::int64_t chunk, double s) {
  if (layer.chunked) {
    const double c = std::min(s, static_cast<double>(chunk)), whole = static_cast<double>(static_cast<std::int64_t>(s / c));
    const double rest = s - whole * c;
    return (whole * c * c + rest * rest) / (2 * s);
  }
  const double w = layer.window == 0 ? s : std::min(s, static_cast<double>(layer.window));
  return w * (1 - w / (2 * s));
}

}    // namespace

double matmul_parameters(const ModelConfig& c) {
  double sum = static_cast<double>(c.hidden) * static_cast<double>(c.vocab);
  for (const LayerConfig& layer : c.layers)
    sum += attention_parameters(c) +
           (layer.routed ? expert_parameters(*c.moe, c.hidden) : 3 * static_cast<double>(c.hidden) * static_cast<double>(c.intermediate));
  return sum;
}

double model_flops_per_token(const ModelConfig& c, std::int64_t seq_len) {
  double pairs = 0;    // per token, over layers: s / 2 of a causal row; less under a window or in chunks
  for (const LayerConfig& layer : c.layers) pairs += visible(layer, c.chunk, static_cast<double>(seq_len));
  return 6 * matmul_parameters(c) + 6 * static_cast<double>(c.heads * (c.head_dim + c.v_dim)) * pairs;
}

}    // namespace sheaf
