#include "models/rope.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/text.h"

// Arithmetic in float, step by step as HF does it: at position 100000 an angle keeps only the digits that both round alike.
namespace sheaf {
namespace {

struct Dims {
  std::int64_t dim, seq_len;
  std::size_t half() const { return static_cast<std::size_t>(dim / 2); }
};

// theta^(2i/dim)
float wave(double theta, std::size_t i, std::int64_t dim) {
  const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
  return static_cast<float>(std::pow(static_cast<double>(static_cast<float>(theta)), static_cast<double>(exponent)));
}

std::vector<float> plain(double theta, const Dims& n) {
  std::vector<float> inv_freq;
  for (std::size_t i = 0; i < n.half(); ++i) inv_freq.push_back(1.0f / wave(theta, i, n.dim));
  return inv_freq;
}

Rope default_rope(const RopeConfig& c, const Dims& n) { return {plain(c.theta, n)}; }

// Positions are divided by the factor.
Rope linear(const RopeConfig& c, const Dims& n) {
  Rope rope{plain(c.theta, n)};
  for (float& f : rope.inv_freq) f /= static_cast<float>(c.factor);
  return rope;
}

// NTK: past the configured positions the base grows with the length.
Rope dynamic(const RopeConfig& c, const Dims& n) {
  const double power = static_cast<double>(n.dim) / static_cast<double>(n.dim - 2);
  if (n.seq_len <= c.max_positions) return {plain(c.theta * std::pow(c.factor - (c.factor - 1), power), n)};
  const float grown =
      static_cast<float>(c.factor) * static_cast<float>(n.seq_len) / static_cast<float>(c.max_positions) - static_cast<float>(c.factor - 1);
  return {plain(static_cast<float>(c.theta) * static_cast<float>(std::pow(static_cast<double>(grown), power)), n)};
}

// Llama 3.1: long waves are stretched, short ones kept, between the two interpolated.
Rope llama3(const RopeConfig& c, const Dims& n) {
  Rope rope{plain(c.theta, n)};
  const auto original = static_cast<double>(c.original_positions);
  const auto longest = static_cast<float>(original / c.low_freq_factor), shortest = static_cast<float>(original / c.high_freq_factor);
  const auto factor = static_cast<float>(c.factor), low = static_cast<float>(c.low_freq_factor);
  for (float& f : rope.inv_freq) {
    const float length = 1.0f / f * static_cast<float>(2 * std::numbers::pi);
    const float smooth = (1.0f / length * static_cast<float>(original) - low) / static_cast<float>(c.high_freq_factor - c.low_freq_factor);
    if (length > longest)
      f /= factor;
    else if (length >= shortest)
      f = (1 - smooth) * f / factor + smooth * f;
  }
  return rope;
}

// Peng et al. 2023: a ramp over the frequencies between interpolation (long waves) and extrapolation (short ones).
Rope yarn(const RopeConfig& c, const Dims& n) {
  const auto dim = static_cast<double>(n.dim);
  const auto index_of = [&](double rotations) {
    return dim * std::log(static_cast<double>(c.original_positions) / (rotations * 2 * std::numbers::pi)) / (2 * std::log(c.theta));
  };
  double low = index_of(c.beta_fast), high = index_of(c.beta_slow);
  if (c.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  Rope rope;
  for (std::size_t i = 0; i < n.half(); ++i) {
    const float ramp = std::clamp((static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f, 1.0f),
                keep = 1 - ramp;
    const float w = wave(c.theta, i, n.dim);
    rope.inv_freq.push_back(1.0f / (static_cast<float>(c.factor) * w) * (1 - keep) + 1.0f / w * keep);
  }
  const auto magnitude = [&](double weight) { return c.factor <= 1 ? 1.0 : 0.1 * weight * std::log(c.factor) + 1; };
  const double given = c.mscale != 0 && c.mscale_all_dim != 0 ? magnitude(c.mscale) / magnitude(c.mscale_all_dim) : magnitude(1);
  rope.scaling = c.attention_factor.value_or(given);
  return rope;
}

// Ding et al. 2024: a searched factor for each frequency, one list up to the pretrained length and one beyond.
Rope longrope(const RopeConfig& c, const Dims& n) {
  const auto& factors = n.seq_len > c.original_positions ? c.long_factor : c.short_factor;
  Rope rope;
  for (std::size_t i = 0; i < n.half(); ++i) rope.inv_freq.push_back(1.0f / (static_cast<float>(factors[i]) * wave(c.theta, i, n.dim)));
  const double grown = c.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(c.factor) / std::log(static_cast<double>(c.original_positions)));
  rope.scaling = c.attention_factor.value_or(grown);
  return rope;
}

// ---- what each type reads from its object; absent keys keep the defaults of RopeConfig

void read_nothing(RopeConfig&, const ConfigReader&, std::int64_t) {}

double positive(const ConfigReader& r, const std::string& key) {
  const double value = r.required_number(key);
  if (!(value > 0)) r.refuse(key, "a number above 0 was wanted");
  return value;
}

void read_factor(RopeConfig& c, const ConfigReader& r, std::int64_t) { c.factor = positive(r, "factor"); }

void read_dynamic(RopeConfig& c, const ConfigReader& r, std::int64_t dim) {
  read_factor(c, r, dim);
  if (dim <= 2) user_error("{}: rope_type 'dynamic' rotates {} channels of a head, more than 2 were wanted", r.where(), dim);
}

void read_llama3(RopeConfig& c, const ConfigReader& r, std::int64_t dim) {
  read_factor(c, r, dim);
  c.low_freq_factor = positive(r, "low_freq_factor"), c.high_freq_factor = positive(r, "high_freq_factor");
  if (c.high_freq_factor <= c.low_freq_factor)
    r.refuse("high_freq_factor", fmt::format("more than low_freq_factor ({}) was wanted", c.low_freq_factor));
}

double grown_by(const RopeConfig& c) { return static_cast<double>(c.max_positions) / static_cast<double>(c.original_positions); }

void read_yarn(RopeConfig& c, const ConfigReader& r, std::int64_t) {
  if (!r.json().contains("factor")) r.missing("factor");
  c.factor = r.has("factor") ? positive(r, "factor") : grown_by(c);
  c.attention_factor = r.number("attention_factor");
  c.mscale = r.number("mscale").value_or(0), c.mscale_all_dim = r.number("mscale_all_dim").value_or(0);
  if (const double given = r.non_negative("beta_fast", 0)) c.beta_fast = given;
  if (const double given = r.non_negative("beta_slow", 0)) c.beta_slow = given;
  c.truncate = r.flag("truncate").value_or(true);
}

void read_longrope(RopeConfig& c, const ConfigReader& r, std::int64_t dim) {
  c.factor = r.has("factor") ? positive(r, "factor") : grown_by(c);
  c.attention_factor = r.number("attention_factor");
  const auto list = [&](const std::string& key) {
    const auto given = r.numbers(key);
    if (!given) r.missing(key);
    if (static_cast<std::int64_t>(given->size()) != dim / 2)
      r.refuse(key, fmt::format("{} numbers were wanted, one per frequency, not {}", dim / 2, given->size()));
    if (std::any_of(given->begin(), given->end(), [](double x) { return !(x > 0); })) r.refuse(key, "numbers above 0 were wanted");
    return *given;
  };
  c.short_factor = list("short_factor"), c.long_factor = list("long_factor");
}

// A new rope_type is one row.
struct RopeType {
  std::string_view name;
  void (*read)(RopeConfig&, const ConfigReader&, std::int64_t dim);
  Rope (*compute)(const RopeConfig&, const Dims&);
};
constexpr std::array kTypes = {
    RopeType{"default", read_nothing, default_rope}, RopeType{"linear", read_factor, linear}, RopeType{"dynamic", read_dynamic, dynamic},
    RopeType{"llama3", read_llama3, llama3},         RopeType{"yarn", read_yarn, yarn},       RopeType{"longrope", read_longrope, longrope},
};

const RopeType* find_type(std::string_view name) {
  const auto found = std::find_if(kTypes.begin(), kTypes.end(), [&](const RopeType& t) { return t.name == name; });
  return found == kTypes.end() ? nullptr : &*found;
}

}    // namespace

std::vector<std::string> rope_types() {
  std::vector<std::string> names;
  for (const RopeType& type : kTypes) names.emplace_back(type.name);
  return names;
}

RopeConfig parse_rope(const ConfigReader& config, std::int64_t head_dim, std::int64_t max_positions, const RopeDefaults& defaults) {
  std::string key;
  for (const char* spelling : {"rope_scaling", "rope_parameters"})    // HF: the first that is not empty
    if (const Json* given = config.find(spelling); given && key.empty() && !given->empty()) key = spelling;
  const bool by_default = key.empty() && !config.has("rope_parameters") && !defaults.parameters.empty();
  const Json otherwise = by_default ? parse_json(std::string(defaults.parameters), "rope_parameters") : Json::object();
  const ConfigReader rope(key.empty() ? otherwise : *config.find(key), key.empty() ? config.where() : config.where() + ": " + key);
  for (const auto& [name, value] : rope.json().items())
    if (value.is_object())
      user_error("{}: {} is an object; rope parameters for each layer type are not supported", rope.where(), quote(name));

  RopeConfig c;
  c.max_positions = max_positions;
  c.type = rope.text("rope_type").value_or(rope.text("type").value_or("default"));
  const RopeType* type = find_type(c.type);
  if (!type) rope.refuse(rope.has("rope_type") ? "rope_type" : "type", "supported: " + join(rope_types(), ", "));
  const ConfigReader& at = rope.has("rope_theta") ? rope : config;
  c.theta = at.number("rope_theta").value_or(defaults.theta);
  if (!(c.theta > 1)) at.refuse("rope_theta", "a number above 1 was wanted");
  const ConfigReader& share = rope.has("partial_rotary_factor") ? rope : config;
  c.partial_rotary_factor = share.number("partial_rotary_factor").value_or(defaults.partial_rotary_factor);
  if (!(c.partial_rotary_factor > 0 && c.partial_rotary_factor <= 1))
    share.refuse("partial_rotary_factor", "above 0 and at most 1 was wanted");
  const std::int64_t dim = c.dim(head_dim);
  if (dim < 2 || dim % 2)
    user_error("{}: {} channels of a head rotate (head_dim {}); an even number was wanted", config.where(), dim, head_dim);
  // Outside the object it wins: phi3's spelling, and HF's order.
  const std::string original = "original_max_position_embeddings";
  c.original_positions = config.size(original, rope.size(original, max_positions));
  type->read(c, rope, dim);
  return c;
}

Rope rope_frequencies(const RopeConfig& rope, std::int64_t head_dim, std::int64_t seq_len) {
  const RopeType* type = find_type(rope.type);
  SHEAF_CHECK(type, "rope_type '{}' has no row", rope.type);
  return type->compute(rope, {rope.dim(head_dim), seq_len});
}

}    // namespace sheaf
