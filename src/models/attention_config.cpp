// The keys of attention that differ from layer to layer, and those of multi-head latent attention.
#include <algorithm>

#include "base/text.h"
#include "models/families.h"

namespace sheaf {
namespace {

constexpr std::int64_t kDefaultMaxWindowLayers = 28, kDefaultChunk = 8192, kDefaultRopeInterval = 4;

// sliding_window; 0: none, which null says.
std::int64_t window_of(const ConfigReader& r, const Family& family) {
  return r.json().contains("sliding_window") ? r.size("sliding_window", 0) : family.window;
}

// Families whose layers are all alike.
void parse_uniform(const ConfigReader& r, const Family& family, ModelConfig& c) {
  if (family.sliding == Sliding::none && r.has("sliding_window"))
    r.refuse("sliding_window", fmt::format("a {} model has none", family.model_type));
  const bool used =
      family.sliding == Sliding::all_layers || (family.sliding == Sliding::if_used && r.flag("use_sliding_window").value_or(false));
  const std::int64_t window = used ? window_of(r, family) : 0;
  const std::string only = window > 0 ? "sliding_attention" : "full_attention";
  if (const Json* types = r.find("layer_types"))
    if (!types->is_array() || std::any_of(types->begin(), types->end(), [&](const Json& t) { return t != only; }))
      r.refuse("layer_types", fmt::format("every layer of this {} model has {}", family.model_type, only));
  for (LayerConfig& layer : c.layers) layer.window = window;
}

// layer_types, each "full_attention" or `other`: true where it is the latter. Missing: as `otherwise` says of a layer.
template <class F>
std::vector<bool> layers_of_type(const ConfigReader& r, std::size_t layers, const std::string& other, F&& otherwise) {
  std::vector<bool> out(layers);
  const Json* types = r.find("layer_types");
  if (types && (!types->is_array() || types->size() != layers))
    r.refuse("layer_types", fmt::format("a list of {} names was wanted", layers));
  for (std::size_t i = 0; i < layers; ++i) {
    if (types && (*types)[i] != other && (*types)[i] != "full_attention") r.refuse("layer_types", "supported: full_attention, " + other);
    out[i] = types ? (*types)[i] == other : otherwise(static_cast<std::int64_t>(i));
  }
  return out;
}

void parse_sliding(const ConfigReader& r, const Family& family, ModelConfig& c) {
  const bool switched = family.sliding != Sliding::even_layers;
  const bool used = !switched || r.flag("use_sliding_window").value_or(false);
  const std::int64_t window = used ? window_of(r, family) : 0;
  const std::int64_t border = r.integer("max_window_layers").value_or(kDefaultMaxWindowLayers);
  const std::vector<bool> slides = layers_of_type(r, c.layers.size(), "sliding_attention", [&](std::int64_t i) {
    if (window == 0) return false;
    return family.sliding == Sliding::from_layer ? i >= border : i % 2 == 0 && (!switched || i < border);
  });
  for (std::size_t i = 0; i < slides.size(); ++i) {
    if (slides[i] && window == 0)
      r.refuse("layer_types", fmt::format("sliding_attention needs sliding_window{}", switched ? ", and use_sliding_window true" : ""));
    c.layers[i].window = slides[i] ? window : 0;
  }
}

// llama4: no_rope_layers has a 1 for every layer *with* rope.
void parse_chunks(const ConfigReader& r, ModelConfig& c) {
  const std::size_t layers = c.layers.size();
  const std::int64_t interval = r.size("no_rope_layer_interval", kDefaultRopeInterval);
  const auto given = r.numbers("no_rope_layers").value_or(std::vector<double>{});
  if (!given.empty() && given.size() < layers) r.refuse("no_rope_layers", fmt::format("{} numbers were wanted", layers));
  for (std::size_t i = 0; i < layers; ++i)
    c.layers[i].rotary = given.empty() ? (static_cast<std::int64_t>(i) + 1) % interval != 0 : given[i] != 0;
  const std::vector<bool> chunked =
      layers_of_type(r, layers, "chunked_attention", [&](std::int64_t i) { return c.layers[static_cast<std::size_t>(i)].rotary; });
  for (std::size_t i = 0; i < layers; ++i) c.layers[i].chunked = chunked[i];
  if (std::find(chunked.begin(), chunked.end(), true) != chunked.end()) {
    if (r.json().contains("attention_chunk_size") && !r.has("attention_chunk_size"))
      r.refuse("attention_chunk_size", "chunked_attention needs a size");
    c.chunk = r.size("attention_chunk_size", kDefaultChunk);
  }
  if (r.flag("attn_temperature_tuning").value_or(true)) {
    c.temperature_floor = r.size("floor_scale", 8192);
    c.temperature_scale = r.number("attn_scale").value_or(0.1);
  }
}

}    // namespace

void parse_layer_types(const ConfigReader& r, const Family& family, ModelConfig& c) {
  switch (family.sliding) {
    case Sliding::none:
    case Sliding::all_layers:
    case Sliding::if_used:
      return parse_uniform(r, family, c);
    case Sliding::from_layer:
    case Sliding::below_layer:
    case Sliding::even_layers:
      return parse_sliding(r, family, c);
    case Sliding::chunks:
      return parse_chunks(r, c);
  }
}

MlaConfig parse_mla(const ConfigReader& r) {
  MlaConfig mla;
  const bool no_q_latent = r.json().contains("q_lora_rank") && !r.has("q_lora_rank");
  mla.q_rank = no_q_latent ? 0 : r.size("q_lora_rank", 1536);
  mla.kv_rank = r.size("kv_lora_rank", 512);
  mla.nope_dim = r.size("qk_nope_head_dim", 128);
  mla.rope_dim = r.size("qk_rope_head_dim", 64);
  mla.v_dim = r.size("v_head_dim", 128);
  return mla;
}

}    // namespace sheaf
