#include "models/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.h"
#include "models/families.h"

namespace sheaf {
namespace {

// Names of HF's ACT2FN. gelu_new is the same formula as gelu_pytorch_tanh.
constexpr std::array<std::pair<std::string_view, Activation>, 6> kActivations = {{{"silu", Activation::silu},
                                                                                  {"swish", Activation::silu},
                                                                                  {"gelu", Activation::gelu},
                                                                                  {"gelu_pytorch_tanh", Activation::gelu_tanh},
                                                                                  {"gelu_new", Activation::gelu_tanh},
                                                                                  {"relu", Activation::relu}}};

const Family& family_of(const ConfigReader& r) {
  const auto type = r.text("model_type");
  if (!type) user_error("{}: 'model_type' is missing; supported: {}", r.where(), join(supported_model_types(), ", "));
  if (const Family* family = find_family(*type)) return *family;
  r.refuse("model_type", "supported: " + join(supported_model_types(), ", ") + did_you_mean(*type, supported_model_types()));
}

// HF ignores a key that a family's class lacks; here one that contradicts what the family does is an error.
bool bias(const ConfigReader& r, std::string_view key, Bias rule, const Family& family) {
  const auto given = r.flag(std::string(key));
  if (rule == Bias::by_key) return given.value_or(family.bias);
  const bool has = rule == Bias::always;
  if (given && *given != has)
    r.refuse(std::string(key), fmt::format("a {} model {} this bias", family.model_type, has ? "always has" : "never has"));
  return has;
}

Activation activation(const ConfigReader& r) {
  const std::string wanted = r.text("hidden_act").value_or("silu");
  std::vector<std::string> names;
  for (const auto& [name, value] : kActivations) {
    if (name == wanted) return value;
    names.emplace_back(name);
  }
  r.refuse("hidden_act", "supported: " + join(names, ", "));
}

DType dtype(const ConfigReader& r) {
  const char* key = r.has("dtype") ? "dtype" : "torch_dtype";
  const auto given = r.text(key);
  if (!given) return DType::fp32;
  const auto found = dtype_from_hf(*given);
  if (!found || (*found != DType::fp32 && *found != DType::bf16 && *found != DType::fp16))
    r.refuse(key, "supported: float32, bfloat16, float16");
  return *found;
}

std::optional<std::int64_t> padding(const ConfigReader& r, const Family& family, std::int64_t vocab) {
  const bool null = r.json().contains("pad_token_id") && !r.has("pad_token_id");
  auto id = r.integer("pad_token_id");
  if (!id && !null) id = family.padding_id;
  if (!id) return id;
  if (*id < -vocab || *id >= vocab)
    user_error("{}: 'pad_token_id' is {}{}; a token below vocab_size {} was wanted", r.where(), *id,
               r.has("pad_token_id") ? "" : fmt::format(" (the default of {})", family.model_type), vocab);
  return *id < 0 ? *id + vocab : *id;    // counted from the end, as torch.nn.Embedding counts
}

void parse_heads(const ConfigReader& r, const Family& family, ModelConfig& c) {
  c.heads = r.size("num_attention_heads");
  const bool kv_null = r.json().contains("num_key_value_heads") && !r.has("num_key_value_heads");
  c.kv_heads = r.size("num_key_value_heads", kv_null || family.kv_heads == 0 ? c.heads : family.kv_heads);
  if (c.heads % c.kv_heads)
    user_error("{}: 'num_attention_heads' is {}, a multiple of 'num_key_value_heads' ({}{}) was wanted", r.where(), c.heads, c.kv_heads,
               r.has("num_key_value_heads") ? "" : ", the default of " + c.model_type);
  if (family.mla) {
    if (c.kv_heads != c.heads) r.refuse("num_key_value_heads", fmt::format("as many as 'num_attention_heads' ({}) was wanted", c.heads));
    c.mla = parse_mla(r);
    c.head_dim = c.mla->nope_dim + c.mla->rope_dim, c.v_dim = c.mla->v_dim;
    return;
  }
  const bool derived = !r.has("head_dim") && (r.json().contains("head_dim") || family.head_dim == 0);
  if (derived && c.hidden % c.heads)
    user_error("{}: 'hidden_size' is {}, a multiple of 'num_attention_heads' ({}) was wanted, or 'head_dim'", r.where(), c.hidden, c.heads);
  c.head_dim = c.v_dim = derived ? c.hidden / c.heads : r.size("head_dim", family.head_dim);
}

void parse_positions(const ConfigReader& r, const Family& family, ModelConfig& c) {
  c.max_positions = r.size("max_position_embeddings", family.max_positions);
  RopeDefaults defaults{.theta = family.theta, .parameters = family.rope};
  if (family.rotary_share > 0) {
    defaults.partial_rotary_factor = family.rotary_share;
    if (r.has("rotary_dim"))    // minimax_m2's own spelling
      defaults.partial_rotary_factor = static_cast<double>(r.size("rotary_dim")) / static_cast<double>(c.head_dim);
  }
  c.rope = parse_rope(r, c.rope_head_dim(), c.max_positions, defaults);
  // HF's default rope of these families ignores it and the others fail on it.
  if (family.rotary_share == 0 && c.rope.partial_rotary_factor != 1)
    user_error("{}: 'partial_rotary_factor' is {}; a {} model rotates whole heads", r.where(), c.rope.partial_rotary_factor, c.model_type);
  c.rope_interleaved = family.rope_interleaved;
  if (family.model_type == "deepseek_v3") c.rope_interleaved = r.flag("rope_interleave").value_or(true);
  c.softmax_scale = 1 / std::sqrt(static_cast<double>(c.head_dim));
  if (family.mla && c.rope.factor > 1 && c.rope.mscale_all_dim != 0) {    // yarn: attention is sharpened as positions are interpolated
    const double m = 0.1 * c.rope.mscale_all_dim * std::log(c.rope.factor) + 1;
    c.softmax_scale *= m * m;
  }
}

// Extents multiply in 64 bits from here on.
void check_sizes(const ConfigReader& r, const ModelConfig& c) {
  const double experts = c.moe ? static_cast<double>(c.moe->experts) * static_cast<double>(c.moe->intermediate) : 0;
  for (const double rows : {static_cast<double>(c.vocab), static_cast<double>(c.intermediate), static_cast<double>(c.heads * c.head_dim),
                            static_cast<double>(c.heads * c.v_dim), experts})
    if (rows * static_cast<double>(c.hidden) > 0x1p48)
      user_error("{}: a weight of {:.0f} x {} ('hidden_size') is larger than any machine", r.where(), rows, c.hidden);
}

}    // namespace

// The loader takes MXFP4 apart; training is in the compute dtype.
static void check_quantization(const ConfigReader& r) {
  const Json* given = r.find("quantization_config");
  if (!given) return;
  const bool mxfp4 = given->is_object() && given->value("quant_method", Json()) == "mxfp4";
  if (mxfp4 && r.has("model_type") && *r.find("model_type") == "gpt_oss") return;
  r.refuse("quantization_config",
           "quantised weights are not supported, but for mxfp4 of gpt_oss; supported dtypes: float32, bfloat16, float16");
}

std::int64_t ModelConfig::routed_layers() const {
  return std::count_if(layers.begin(), layers.end(), [](const LayerConfig& layer) { return layer.routed; });
}

static ModelConfig parse_text_config(const Json& config, const std::string& where);

ModelConfig parse_model_config(const Json& config, const std::string& where) {
  const ConfigReader r(config, where);
  check_quantization(r);
  if (!r.flag("is_causal").value_or(true)) r.refuse("is_causal", "only causal language models are supported");
  if (const Json* text = r.find("text_config"); text && r.find("model_type") && *r.find("model_type") == "llama4") {
    Json inner = *text;    // the language model of images and text
    for (const char* key : {"dtype", "torch_dtype", "tie_word_embeddings"})
      if (r.has(key) && inner.is_object()) inner[key] = *r.find(key);
    if (inner.is_object() && !inner.contains("model_type")) inner["model_type"] = "llama4_text";
    return parse_text_config(inner, where + ": text_config");
  }
  return parse_text_config(config, where);
}

static ModelConfig parse_text_config(const Json& config, const std::string& where) {
  const ConfigReader r(config, where);
  const Family& family = family_of(r);
  check_fixed_keys(r, family);

  ModelConfig c{.model_type = std::string(family.model_type)};
  c.mlp_name = family.mlp_name;
  c.vocab = r.size("vocab_size");
  c.hidden = r.size("hidden_size");
  c.intermediate = r.size(std::string(family.intermediate_key));
  const std::int64_t layers = r.size("num_hidden_layers");
  if (layers > 10000) r.refuse("num_hidden_layers", "at most 10000 was wanted");
  c.layers.resize(static_cast<std::size_t>(layers));
  parse_heads(r, family, c);
  c.qkv_bias = bias(r, family.bias_key, family.qkv_bias, family);
  c.o_bias = family.o_bias == Bias::by_key && c.qkv_bias;
  c.mlp_bias = bias(r, family.mlp_bias_key, family.mlp_bias, family);
  c.qk_norm = family.qk_norm;
  if (family.use_qk_norm && !r.flag("use_qk_norm").value_or(*family.use_qk_norm)) c.qk_norm = QkNorm::none;
  if (c.qk_norm == QkNorm::all_heads && c.model_type == "olmoe" && c.heads * c.head_dim != c.hidden)
    r.refuse("head_dim", fmt::format("an olmoe model norms q over 'hidden_size' ({})", c.hidden));
  if (family.model_type == "olmoe") c.qkv_clip = r.non_negative("clip_qkv", 0);
  c.sinks = family.sinks;
  c.head_bias = family.head_bias && c.mlp_bias;
  c.tied_head = r.flag("tie_word_embeddings").value_or(family.tied_head);
  c.rms_eps = r.non_negative("rms_norm_eps", family.rms_eps);
  c.fp32_norms = family.fp32_norms;
  c.activation = activation(r);
  parse_layer_types(r, family, c);
  parse_moe(r, c);
  check_sizes(r, c);
  parse_positions(r, family, c);
  c.initializer_range = r.non_negative("initializer_range", 0.02);
  c.attention_dropout = r.non_negative("attention_dropout", 0);
  c.padding_id = padding(r, family, c.vocab);
  c.bos_id = r.first_integer("bos_token_id");
  c.eos_id = r.first_integer("eos_token_id");
  c.dtype = dtype(r);
  return c;
}

}    // namespace sheaf
