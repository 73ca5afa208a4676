#pragma once
// What is particular to a family: a row for each, and what reads the keys that only some of them have.
#include <optional>
#include <string_view>

#include "models/model_config.h"

namespace sheaf {

enum class Bias { never, always, by_key };
enum class Sliding {
  none,
  all_layers,     // wherever sliding_window is given
  if_used,        // the same, if use_sliding_window is true
  from_layer,     // layer_types, or from layer max_window_layers on; if use_sliding_window is true
  below_layer,    // layer_types, or every even layer below max_window_layers; if use_sliding_window is true
  even_layers,    // layer_types, or every even layer
  chunks          // layer_types, or in layers with rope; the chunk is attention_chunk_size
};

// Defaults are those of HF's config class.
struct Family {
  std::string_view model_type;
  Bias qkv_bias = Bias::never, o_bias = Bias::never, mlp_bias = Bias::never;
  std::string_view bias_key = "attention_bias", mlp_bias_key = "mlp_bias";
  bool bias = false;    // where the key is missing
  QkNorm qk_norm = QkNorm::none;
  std::optional<bool> use_qk_norm = {};    // given: the key of this name switches qk_norm; its default
  Sliding sliding = Sliding::none;
  std::int64_t window = 4096;
  std::int64_t kv_heads = 0;    // 0: as heads
  std::int64_t head_dim = 0;    // 0: hidden / heads
  std::int64_t max_positions = 0;
  double theta = 10000;
  double rotary_share = 0;       // partial_rotary_factor; 0: heads rotate whole, and the key is refused
  std::string_view rope = {};    // rope_parameters
  bool rope_interleaved = false;
  double rms_eps = 1e-6;
  bool head_bias = false;    // where the MLP has one
  bool fp32_norms = false, sinks = false, tied_head = false, mla = false;
  std::optional<std::int64_t> padding_id = {};
  std::string_view mlp_name = "mlp", intermediate_key = "intermediate_size";
};

const Family* find_family(std::string_view model_type);    // nullptr: none

// A key whose value a family's code has fixed: any other in the file is a contradiction.
struct FixedKey {
  std::string_view model_type, key, value;    // value: as JSON
};
void check_fixed_keys(const ConfigReader& r, const Family& family);

// Windows, chunks and rope of every layer. c.layers has its size.
void parse_layer_types(const ConfigReader& r, const Family& family, ModelConfig& c);
MlaConfig parse_mla(const ConfigReader& r);
// c.moe and which layers are routed; of a dense family nothing.
void parse_moe(const ConfigReader& r, ModelConfig& c);

}    // namespace sheaf
