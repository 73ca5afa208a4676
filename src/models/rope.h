#pragma once
// Rotary position embedding: frequencies and scaling of every rope_type, as HF transformers computes them.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/config_reader.h"

namespace sheaf {

struct RopeConfig {
  std::string type = "default";    // one of rope_types()
  double theta = 10000;
  double partial_rotary_factor = 1;                    // share of head_dim that rotates
  double factor = 1;                                   // linear, dynamic, llama3, yarn, longrope
  std::int64_t max_positions = 0;                      // what the model is configured for
  std::int64_t original_positions = 0;                 // llama3, yarn, longrope: what it was pretrained for
  double low_freq_factor = 1, high_freq_factor = 4;    // llama3
  double beta_fast = 32, beta_slow = 1;                // yarn
  double mscale = 0, mscale_all_dim = 0;               // yarn; 0: not given
  bool truncate = true;                                // yarn
  std::optional<double> attention_factor;              // yarn, longrope; absent: from factor
  std::vector<double> short_factor, long_factor;       // longrope: one per frequency

  std::int64_t dim(std::int64_t head_dim) const { return static_cast<std::int64_t>(static_cast<double>(head_dim) * partial_rotary_factor); }
  bool operator==(const RopeConfig&) const = default;
};

// What a family's class has where the keys are missing.
struct RopeDefaults {
  double theta = 10000, partial_rotary_factor = 1;
  std::string_view parameters = {};    // of rope_parameters, as JSON
};

// From rope_parameters (new spelling), or rope_scaling with rope_theta beside it (old). Throws UserError.
RopeConfig parse_rope(const ConfigReader& config, std::int64_t head_dim, std::int64_t max_positions, const RopeDefaults& defaults = {});
std::vector<std::string> rope_types();

struct Rope {
  std::vector<float> inv_freq;    // [dim / 2]
  double scaling = 1;             // of cos and sin
};

// Of a graph whose rows have seq_len positions: dynamic and longrope depend on it, as in HF on the largest position + 1 of a batch.
Rope rope_frequencies(const RopeConfig& rope, std::int64_t head_dim, std::int64_t seq_len);

}    // namespace sheaf
