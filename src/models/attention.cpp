// Attention of a layer: grouped-query, or multi-head latent.
#include <cmath>

#include "models/parts.h"

namespace sheaf {
namespace {

constexpr double kLatentEps = 1e-6;    // of the norms of latents: HF's modules take their class's default, not the model's

Value rotated(Parts& p, Value x, const Positions& positions) {
  return p.b.rotate(x, positions.cos, positions.sin, p.c.rope_interleaved, false);
}

// Softmax over what the layer lets a query see, and the values under it.
Value attend(Parts& p, Value q_bshrd, Value k_bshd, Value v_bshe, const std::string& prefix, const LayerConfig& layer,
             const Positions& positions) {
  Value sinks;
  if (p.c.sinks) sinks = p.parameter(prefix + "sinks", {p.c.kv_heads, p.c.heads_per_kv()}, "normal", {p.c.heads});
  return p.b.attention(q_bshrd, k_bshd, v_bshe, layer.chunked ? positions.chunk_ends : positions.ends, sinks, true, p.c.softmax_scale,
                       layer.window)[0];
}

Value output(Parts& p, Value o_bshre, const std::string& prefix) {
  return p.linear("b s h r d, k h r d -> b s k", o_bshre, prefix + "o_proj", {p.c.hidden}, {p.c.kv_heads, p.c.heads_per_kv(), p.c.v_dim},
                  p.c.o_bias);
}

Value grouped_query(Parts& p, Value x_bsk, const std::string& prefix, const LayerConfig& layer, const Positions& positions) {
  const ModelConfig& c = p.c;
  const std::int64_t h = c.kv_heads, r = c.heads_per_kv(), d = c.head_dim;
  Value q = p.linear("b s k, h r d k -> b s h r d", x_bsk, prefix + "q_proj", {h, r, d}, {c.hidden}, c.qkv_bias);
  Value k = p.linear("b s k, h d k -> b s h d", x_bsk, prefix + "k_proj", {h, d}, {c.hidden}, c.qkv_bias);
  Value v = p.linear("b s k, h d k -> b s h d", x_bsk, prefix + "v_proj", {h, d}, {c.hidden}, c.qkv_bias);
  if (c.qk_norm == QkNorm::head) q = p.norm(q, prefix + "q_norm", {d}, c.rms_eps), k = p.norm(k, prefix + "k_norm", {d}, c.rms_eps);
  if (c.qk_norm == QkNorm::all_heads)
    q = p.norm(q, prefix + "q_norm", {h, r, d}, c.rms_eps), k = p.norm(k, prefix + "k_norm", {h, d}, c.rms_eps);
  if (c.qkv_clip > 0)
    for (Value* x : {&q, &k, &v}) *x = p.b.clamp(*x, -c.qkv_clip, c.qkv_clip);
  if (layer.rotary) {
    q = rotated(p, q, positions), k = rotated(p, k, positions);
    if (c.qk_norm == QkNorm::unweighted) q = p.b.rms_norm(q, {}, c.rms_eps), k = p.b.rms_norm(k, {}, c.rms_eps);
  } else if (positions.temperature) {
    q = p.to_compute(p.b.einsum("b s h r d, s -> b s h r d", p.to_fp32(q), positions.temperature));
  }
  return output(p, attend(p, q, k, v, prefix, layer, positions), prefix);
}

// Every head has its own k and v, made of one latent: h is all heads and r is 1. The rotated channels of k are one for all heads.
Value latent(Parts& p, Value x_bsk, const std::string& prefix, const LayerConfig& layer, const Positions& positions) {
  const ModelConfig& c = p.c;
  const MlaConfig& m = *c.mla;
  const std::int64_t h = c.heads, d = c.head_dim;
  Value from = x_bsk;
  if (m.q_rank)
    from = p.norm(p.linear("b s k, l k -> b s l", x_bsk, prefix + "q_a_proj", {m.q_rank}, {c.hidden}, c.qkv_bias), prefix + "q_a_layernorm",
                  {m.q_rank}, kLatentEps);
  Value q = p.linear("b s k, h r d k -> b s h r d", from, prefix + (m.q_rank ? "q_b_proj" : "q_proj"), {h, 1, d},
                     {m.q_rank ? m.q_rank : c.hidden}, false);
  q = p.b.join(p.b.part(q, 0, m.nope_dim), rotated(p, p.b.part(q, m.nope_dim, m.rope_dim), positions));

  const Value both =
      p.linear("b s k, l k -> b s l", x_bsk, prefix + "kv_a_proj_with_mqa", {m.kv_rank + m.rope_dim}, {c.hidden}, c.qkv_bias);
  const Value latent_bsl = p.norm(p.b.part(both, 0, m.kv_rank), prefix + "kv_a_layernorm", {m.kv_rank}, kLatentEps);
  const Value kv_bshd =
      p.linear("b s l, h d l -> b s h d", latent_bsl, prefix + "kv_b_proj", {h, m.nope_dim + m.v_dim}, {m.kv_rank}, false);
  const Value nope_bshn = p.b.part(kv_bshd, 0, m.nope_dim), v = p.b.part(kv_bshd, m.nope_dim, m.v_dim);
  const Value rope_bsp = rotated(p, p.b.part(both, m.kv_rank, m.rope_dim), positions);
  const Value k = p.b.join(nope_bshn, p.b.broadcast(rope_bsp, nope_bshn, "b s p, b s h n -> b s h p"));
  return output(p, attend(p, q, k, v, prefix, layer, positions), prefix);
}

// Multiples of the chunk, as the ends of documents.
Value chunk_ends(Builder& b, std::int64_t chunk, const ModelShape& shape, Value ends) {
  if (ends) return b.merge_ends(ends, chunk, shape.seq_len);
  const std::int64_t n = (shape.seq_len - 1) / chunk;
  if (n == 0) return {};    // a row is one chunk
  std::vector<double> data;
  for (std::int64_t row = 0; row < shape.rows; ++row)
    for (std::int64_t i = 1; i <= n; ++i) data.push_back(static_cast<double>(i * chunk));
  return b.constant("chunk_ends", DType::i32, {shape.rows, n}, data);
}

Value temperature(Builder& b, const ModelConfig& c, std::int64_t seq_len) {
  if (c.temperature_floor == 0 || seq_len < c.temperature_floor) return {};    // ln 1 everywhere
  std::vector<double> data;
  for (std::int64_t s = 1; s <= seq_len; ++s) {
    const std::int64_t passed = s / c.temperature_floor;
    data.push_back(1 + c.temperature_scale * std::log1p(static_cast<double>(passed)));
  }
  return b.constant("temperature", DType::fp32, {seq_len}, data);
}

}    // namespace

Positions write_positions(Builder& b, const ModelConfig& c, const ModelShape& shape) {
  Positions positions;
  const Value at = b.input("positions", DType::i32, {shape.rows, shape.seq_len});
  if (shape.documents) positions.ends = b.input("document_ends", DType::i32, {shape.rows, shape.documents}, "b c");
  const Rope rope = rope_frequencies(c.rope, c.rope_head_dim(), shape.seq_len);
  const auto num_freqs = static_cast<std::int64_t>(rope.inv_freq.size());
  const Value inv_freq = b.constant("rope.inv_freq", DType::fp32, {num_freqs}, {rope.inv_freq.begin(), rope.inv_freq.end()});
  const Results angles = b.rope_angles(at, inv_freq, rope.scaling);
  positions.cos = angles[0], positions.sin = angles[1];
  if (c.chunk) positions.chunk_ends = chunk_ends(b, c.chunk, shape, positions.ends);
  positions.temperature = temperature(b, c, shape.seq_len);
  return positions;
}

Value write_attention(Parts& parts, Value x_bsk, const std::string& prefix, const LayerConfig& layer, const Positions& positions) {
  return parts.c.mla ? latent(parts, x_bsk, prefix, layer, positions) : grouped_query(parts, x_bsk, prefix, layer, positions);
}

}    // namespace sheaf
