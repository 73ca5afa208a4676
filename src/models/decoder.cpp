#include "models/decoder.h"

#include "base/error.h"
#include "base/text.h"
#include "models/loss.h"
#include "models/parts.h"

namespace sheaf {

ModelValues build_decoder(Builder& b, const ModelConfig& c, const ModelShape& shape) {
  if (c.attention_dropout > 0)
    user_error("config.json: 'attention_dropout' is {}; training with dropout is not supported, set it to 0", c.attention_dropout);
  const Value ids = b.input("ids", DType::i32, {shape.rows, shape.seq_len}),
              labels = b.input("labels", DType::i32, {shape.rows, shape.seq_len});
  const Positions positions = write_positions(b, c, shape);
  Parts parts(b, c);

  const std::string embed = "model.embed_tokens.weight";
  const Value table_vk = parts.parameter(embed, {c.vocab, c.hidden}, "normal");
  if (c.padding_id) b.graph()[b.graph().find(embed)].attrs.set("zero_row", Int(*c.padding_id));
  Value x_bsk = b.embedding(table_vk, ids, c.padding_id.value_or(-1), "residual");
  ModelValues values;
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    const LayerConfig& layer = c.layers[i];
    const std::string prefix = fmt::format("model.layers.{}.", i), mlp = prefix + c.mlp_name + ".";
    x_bsk = b.add(x_bsk, write_attention(parts, parts.norm(x_bsk, prefix + "input_layernorm"), prefix + "self_attn.", layer, positions),
                  "residual");
    const Value normed_bsk = parts.norm(x_bsk, prefix + "post_attention_layernorm");
    if (layer.routed) values.routed.push_back(write_moe(parts, normed_bsk, mlp));
    x_bsk = b.add(x_bsk, layer.routed ? values.routed.back().out_bsk : write_mlp(parts, normed_bsk, mlp, c.intermediate), "residual");
  }
  x_bsk = parts.norm(x_bsk, "model.norm");
  const Value head_vk = c.tied_head ? table_vk : parts.parameter("lm_head.weight", {c.vocab, c.hidden}, "normal");
  Value logits = b.einsum("b s k, v k -> b s v", x_bsk, head_vk);
  if (c.head_bias) logits = b.add(logits, parts.parameter("lm_head.bias", {c.vocab}, "zeros"));
  values.logits = parts.to_fp32(logits);
  values.nll = token_nll(b, values.logits, labels);
  return values;
}

}    // namespace sheaf
