#include "models/dense.h"

#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "models/loss.h"

namespace sheaf {
namespace {

// Letters: b rows, s positions, k hidden, h kv heads, r query heads per kv head, d head_dim, i intermediate, v vocab, c documents.
class Dense {
 public:
  Dense(Builder& b, const DenseConfig& c) : b_(b), c_(c) {}

  ModelValues write(const ModelShape& shape) {
    const Value ids = b_.input("ids", DType::i32, {shape.rows, shape.seq_len}),
                labels = b_.input("labels", DType::i32, {shape.rows, shape.seq_len});
    const Value positions = b_.input("positions", DType::i32, {shape.rows, shape.seq_len});
    if (shape.documents) ends_ = b_.input("document_ends", DType::i32, {shape.rows, shape.documents}, "b c");
    const Rope rope = rope_frequencies(c_.rope, c_.head_dim, shape.seq_len);
    const auto num_freqs = static_cast<std::int64_t>(rope.inv_freq.size());
    const Value inv_freq = b_.constant("rope.inv_freq", DType::fp32, {num_freqs}, {rope.inv_freq.begin(), rope.inv_freq.end()});
    const Results angles = b_.rope_angles(positions, inv_freq, rope.scaling);
    cos_ = angles[0], sin_ = angles[1];

    const std::string embed = "model.embed_tokens.weight";
    const Value table_vk = b_.parameter(embed, {c_.vocab, c_.hidden}, "normal", c_.initializer_range);
    if (c_.padding_id) b_.graph()[b_.graph().find(embed)].attrs.set("zero_row", Int(*c_.padding_id));
    Value x_bsk = b_.embedding(table_vk, ids, c_.padding_id.value_or(-1), "residual");
    for (std::int64_t layer = 0; layer < c_.layers; ++layer) {
      const std::string prefix = fmt::format("model.layers.{}.", layer);
      x_bsk = b_.add(
          x_bsk,
          attention(norm(x_bsk, prefix + "input_layernorm", c_.hidden), prefix + "self_attn.", c_.windows[static_cast<std::size_t>(layer)]),
          "residual");
      x_bsk = b_.add(x_bsk, mlp(norm(x_bsk, prefix + "post_attention_layernorm", c_.hidden), prefix + "mlp."), "residual");
    }
    x_bsk = norm(x_bsk, "model.norm", c_.hidden);
    const Value head_vk = c_.tied_head ? table_vk : b_.parameter("lm_head.weight", {c_.vocab, c_.hidden}, "normal", c_.initializer_range);
    Value logits = b_.einsum("b s k, v k -> b s v", x_bsk, head_vk);
    if (b_.type(logits).dtype != DType::fp32) logits = b_.cast(logits, Text("fp32"));
    const Value nll = token_nll(b_, logits, labels);
    return {logits, nll};
  }

 private:
  Value attention(Value x_bsk, const std::string& prefix, std::int64_t window) {
    const std::int64_t h = c_.kv_heads, r = c_.heads_per_kv(), d = c_.head_dim;
    Value q = linear("b s k, h r d k -> b s h r d", x_bsk, prefix + "q_proj", {h, r, d}, {c_.hidden}, c_.qkv_bias);
    Value k = linear("b s k, h d k -> b s h d", x_bsk, prefix + "k_proj", {h, d}, {c_.hidden}, c_.qkv_bias);
    const Value v = linear("b s k, h d k -> b s h d", x_bsk, prefix + "v_proj", {h, d}, {c_.hidden}, c_.qkv_bias);
    if (c_.qk_norm) q = norm(q, prefix + "q_norm", d), k = norm(k, prefix + "k_norm", d);
    q = b_.rotate(q, cos_, sin_, false, false);
    k = b_.rotate(k, cos_, sin_, false, false);
    const Results out = b_.attention(q, k, v, ends_, {}, true, 1 / std::sqrt(static_cast<double>(d)), window);
    return linear("b s h r d, k h r d -> b s k", out[0], prefix + "o_proj", {c_.hidden}, {h, r, d}, c_.o_bias);
  }

  Value mlp(Value x_bsk, const std::string& prefix) {
    const Value gate_bsi = linear("b s k, i k -> b s i", x_bsk, prefix + "gate_proj", {c_.intermediate}, {c_.hidden}, c_.mlp_bias);
    const Value up_bsi = linear("b s k, i k -> b s i", x_bsk, prefix + "up_proj", {c_.intermediate}, {c_.hidden}, c_.mlp_bias);
    return linear("b s i, k i -> b s k", b_.mul(activate(gate_bsi), up_bsi), prefix + "down_proj", {c_.hidden}, {c_.intermediate},
                  c_.mlp_bias);
  }

  Value activate(Value x) {
    switch (c_.activation) {
      case Activation::silu:
        return b_.silu(x);
      case Activation::gelu:
        return b_.gelu(x, false);
      case Activation::gelu_tanh:
        return b_.gelu(x, true);
      case Activation::relu:
        return b_.relu(x);
    }
    return x;
  }

  Value norm(Value x, const std::string& name, std::int64_t extent) {
    return b_.rms_norm(x, b_.parameter(name + ".weight", {extent}, "ones"), c_.rms_eps);
  }

  // x times the weight [out.., in..] over the dims `in`, plus a bias [out..].
  Value linear(const char* rule, Value x, const std::string& name, const Shape& out, const Shape& in, bool bias) {
    Shape shape = out;
    shape.insert(shape.end(), in.begin(), in.end());
    const Value y = b_.einsum(rule, x, parameter(name + ".weight", shape, "normal", {num_elements(out), num_elements(in)}));
    return bias ? b_.add(y, parameter(name + ".bias", out, "zeros", {num_elements(out)})).front() : y;
  }

  Value parameter(const std::string& name, const Shape& shape, const char* init, const Shape& in_file) {
    const Value v = b_.parameter(name, shape, init, c_.initializer_range);
    if (shape != in_file) b_.graph()[b_.graph().find(name)].attrs.set("file_shape", Text(fmt::format("[{}]", fmt::join(in_file, " "))));
    return v;
  }

  Builder& b_;
  const DenseConfig& c_;
  Value cos_, sin_, ends_;
};

}    // namespace

ModelValues build_dense(Builder& b, const DenseConfig& config, const ModelShape& shape) {
  if (config.attention_dropout > 0)
    user_error("config.json: 'attention_dropout' is {}; training with dropout is not supported, set it to 0", config.attention_dropout);
  return Dense(b, config).write(shape);
}

}    // namespace sheaf
