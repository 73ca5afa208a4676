#include "models/model_config.h"

#include <algorithm>
#include <array>

#include "base/text.h"

namespace sheaf {
namespace {

enum class Bias { never, always, by_key };
enum class Sliding {
  none,
  all_layers,    // wherever sliding_window is given
  by_layer       // layer_types, or from layer max_window_layers on; use_sliding_window switches it off
};

// A new family of this shape is one row. Defaults are those of HF's config class; kv_heads 0: as heads; head_dim 0: hidden / heads.
struct Family {
  std::string_view model_type;
  Bias qkv_bias, o_bias;    // key: attention_bias
  Bias mlp_bias;            // key: mlp_bias
  bool qk_norm;
  Sliding sliding;
  std::int64_t kv_heads, head_dim, max_positions;
};
constexpr std::array kFamilies = {
    Family{"llama", Bias::by_key, Bias::by_key, Bias::by_key, false, Sliding::none, 0, 0, 2048},
    Family{"mistral", Bias::never, Bias::never, Bias::never, false, Sliding::all_layers, 8, 0, 131072},
    Family{"qwen2", Bias::always, Bias::never, Bias::never, false, Sliding::by_layer, 32, 0, 32768},
    Family{"qwen3", Bias::by_key, Bias::by_key, Bias::never, true, Sliding::by_layer, 32, 128, 32768},
};
constexpr std::int64_t kDefaultWindow = 4096, kDefaultMaxWindowLayers = 28;

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
  for (const Family& family : kFamilies)
    if (family.model_type == *type) return family;
  r.refuse("model_type", "supported: " + join(supported_model_types(), ", ") + did_you_mean(*type, supported_model_types()));
}

// HF ignores a key that a family's class lacks; here one that contradicts what the family does is an error.
bool bias(const ConfigReader& r, const char* key, Bias rule, const Family& family) {
  const auto given = r.flag(key);
  if (rule == Bias::by_key) return given.value_or(false);
  const bool has = rule == Bias::always;
  if (given && *given != has) r.refuse(key, fmt::format("a {} model {} this bias", family.model_type, has ? "always has" : "never has"));
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

std::vector<std::int64_t> windows(const ConfigReader& r, const Family& family, std::int64_t layers) {
  const auto all = [&](std::int64_t window) { return std::vector(static_cast<std::size_t>(layers), window); };
  const auto given = [&] { return r.json().contains("sliding_window") ? r.size("sliding_window", 0) : kDefaultWindow; };    // null: none
  if (family.sliding != Sliding::by_layer) {
    const std::string only = family.sliding == Sliding::none ? "full_attention" : "sliding_attention";
    if (const Json* types = r.find("layer_types"))
      if (!types->is_array() || std::any_of(types->begin(), types->end(), [&](const Json& t) { return t != only; }))
        r.refuse("layer_types", fmt::format("every layer of a {} model has {}", family.model_type, only));
    if (family.sliding == Sliding::all_layers) return all(given());
    if (r.has("sliding_window")) r.refuse("sliding_window", fmt::format("a {} model has none", family.model_type));
    return all(0);
  }
  const std::int64_t window = r.flag("use_sliding_window").value_or(false) ? given() : 0;
  std::vector<std::int64_t> out = all(0);
  if (const Json* types = r.find("layer_types")) {
    if (!types->is_array() || static_cast<std::int64_t>(types->size()) != layers)
      r.refuse("layer_types", fmt::format("a list of {} names was wanted", layers));
    for (std::size_t i = 0; i < out.size(); ++i) {
      const Json& type = (*types)[i];
      if (type == "full_attention") continue;
      if (type != "sliding_attention") r.refuse("layer_types", "supported: full_attention, sliding_attention");
      if (window == 0) r.refuse("layer_types", "sliding_attention needs sliding_window, and use_sliding_window true");
      out[i] = window;
    }
    return out;
  }
  const std::int64_t first = r.integer("max_window_layers").value_or(kDefaultMaxWindowLayers);
  for (std::int64_t i = std::clamp<std::int64_t>(first, 0, layers); i < layers; ++i) out[static_cast<std::size_t>(i)] = window;
  return out;
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

std::optional<std::int64_t> padding(const ConfigReader& r, std::int64_t vocab) {
  auto id = r.integer("pad_token_id");
  if (!id) return id;
  if (*id < -vocab || *id >= vocab) r.refuse("pad_token_id", fmt::format("a token below vocab_size {} was wanted", vocab));
  return *id < 0 ? *id + vocab : *id;    // counted from the end, as torch.nn.Embedding counts
}

}    // namespace

std::vector<std::string> supported_model_types() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.emplace_back(family.model_type);
  return names;
}

DenseConfig parse_model_config(const Json& config, const std::string& where) {
  const ConfigReader r(config, where);
  const Family& family = family_of(r);
  if (r.has("quantization_config"))
    r.refuse("quantization_config", "quantised weights are not supported; supported dtypes: float32, bfloat16, float16");
  if (!r.flag("is_causal").value_or(true)) r.refuse("is_causal", "only causal language models are supported");

  DenseConfig c{.model_type = std::string(family.model_type)};
  c.vocab = r.size("vocab_size");
  c.hidden = r.size("hidden_size");
  c.intermediate = r.size("intermediate_size");
  c.layers = r.size("num_hidden_layers");
  if (c.layers > 10000) r.refuse("num_hidden_layers", "at most 10000 was wanted");
  c.heads = r.size("num_attention_heads");
  const bool kv_null = config.contains("num_key_value_heads") && !r.has("num_key_value_heads");
  c.kv_heads = r.size("num_key_value_heads", kv_null || family.kv_heads == 0 ? c.heads : family.kv_heads);
  if (c.heads % c.kv_heads)
    user_error("{}: 'num_attention_heads' is {}, a multiple of 'num_key_value_heads' ({}{}) was wanted", where, c.heads, c.kv_heads,
               r.has("num_key_value_heads") ? "" : ", the default of " + c.model_type);
  const bool derived = !r.has("head_dim") && (config.contains("head_dim") || family.head_dim == 0);
  if (derived && c.hidden % c.heads)
    user_error("{}: 'hidden_size' is {}, a multiple of 'num_attention_heads' ({}) was wanted, or 'head_dim'", where, c.hidden, c.heads);
  c.head_dim = derived ? c.hidden / c.heads : r.size("head_dim", family.head_dim);
  for (const std::int64_t rows : {c.vocab, c.intermediate, c.heads * c.head_dim})    // extents multiply in 64 bits from here on
    if (static_cast<double>(rows) * static_cast<double>(c.hidden) > 0x1p48)
      user_error("{}: a weight of {} x {} ('hidden_size') is larger than any machine", where, rows, c.hidden);

  c.qkv_bias = bias(r, "attention_bias", family.qkv_bias, family);
  c.o_bias = family.o_bias == Bias::by_key && c.qkv_bias;
  c.mlp_bias = bias(r, "mlp_bias", family.mlp_bias, family);
  c.qk_norm = family.qk_norm;
  c.tied_head = r.flag("tie_word_embeddings").value_or(false);
  c.rms_eps = r.non_negative("rms_norm_eps", 1e-6);
  c.activation = activation(r);
  c.windows = windows(r, family, c.layers);
  c.max_positions = r.size("max_position_embeddings", family.max_positions);
  c.rope = parse_rope(r, c.head_dim, c.max_positions);
  // HF's default rope of these families ignores it and the others fail on it.
  if (c.rope.partial_rotary_factor != 1)
    user_error("{}: 'partial_rotary_factor' is {}; a {} model rotates whole heads", where, c.rope.partial_rotary_factor, c.model_type);
  c.initializer_range = r.non_negative("initializer_range", 0.02);
  c.attention_dropout = r.non_negative("attention_dropout", 0);
  c.padding_id = padding(r, c.vocab);
  c.bos_id = r.first_integer("bos_token_id");
  c.eos_id = r.first_integer("eos_token_id");
  c.dtype = dtype(r);
  return c;
}

double matmul_parameters(const DenseConfig& c) {
  const double per_layer =
      static_cast<double>(c.hidden) * static_cast<double>(2 * (c.heads + c.kv_heads) * c.head_dim + 3 * c.intermediate);
  return static_cast<double>(c.layers) * per_layer + static_cast<double>(c.hidden) * static_cast<double>(c.vocab);
}

double model_flops_per_token(const DenseConfig& c, std::int64_t seq_len) {
  const auto s = static_cast<double>(seq_len);
  double pairs = 0;    // per token, over layers: s / 2 of a causal row; less under a window
  for (const std::int64_t window : c.windows) {
    const double w = window == 0 ? s : std::min(s, static_cast<double>(window));
    pairs += w * (1 - w / (2 * s));
  }
  return 6 * matmul_parameters(c) + 12 * static_cast<double>(c.heads * c.head_dim) * pairs;
}

}    // namespace sheaf
