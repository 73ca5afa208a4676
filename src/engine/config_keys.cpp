#include "engine/config_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

struct Row {
  const char *path, *type, *preset, *only, *doc;
  KeyStatus status;
};
#define USED(path, type, preset, doc) {path, type, preset, "", doc, KeyStatus::used},
#define IDLE(path, type, preset, doc) {path, type, preset, "", doc, KeyStatus::idle},
#define REFUSED(path, type, preset, only, doc) {path, type, preset, only, doc, KeyStatus::refused},
constexpr Row kRows[] = {
#include "engine/config_table.inc"
};
#undef USED
#undef IDLE
#undef REFUSED

const std::map<std::string_view, KeyKind> kKinds = {{"int", KeyKind::integer},   {"number", KeyKind::number}, {"bool", KeyKind::boolean},
                                                    {"text", KeyKind::text},     {"list", KeyKind::list},     {"object", KeyKind::object},
                                                    {"open", KeyKind::open},     {"pair", KeyKind::pair},     {"source", KeyKind::source},
                                                    {"corpus", KeyKind::corpus}, {"choice", KeyKind::choice}};

// The table writes JSON with single quotes, so that it can be read.
Json table_json(std::string text) {
  std::replace(text.begin(), text.end(), '\'', '"');
  return Json::parse(text);
}

Key parse_row(const Row& row) {
  std::vector<std::string> words = split(row.type, ' ');
  Key key;
  key.path = row.path;
  key.nullable = words[0].ends_with('?');
  if (key.nullable) words[0].pop_back();
  SHEAF_CHECK(kKinds.contains(words[0]), "config_table.inc: {} has the unknown type {}", row.path, words[0]);
  key.kind = kKinds.at(words[0]);
  (key.kind == KeyKind::choice ? key.choices : key.bounds).assign(words.begin() + 1, words.end());
  key.required = *row.preset == '\0';
  key.preset = key.required ? Json() : table_json(row.preset);
  key.status = row.status;
  if (row.status == KeyStatus::refused)
    for (const Json& value : table_json(fmt::format("[{}]", row.only))) key.only.push_back(value);
  key.doc = row.doc;
  return key;
}

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

template <class Number>
bool within(Number value, const std::vector<std::string>& bounds) {
  return std::all_of(bounds.begin(), bounds.end(), [&](const std::string& bound) {
    const std::size_t digits = bound.find_first_not_of("<>=");
    Number limit{};
    std::from_chars(bound.data() + digits, bound.data() + bound.size(), limit);
    const std::string_view op = std::string_view(bound).substr(0, digits);
    return op == ">=" ? value >= limit : op == ">" ? value > limit : op == "<=" ? value <= limit : value < limit;
  });
}

std::optional<Json> accept_integer(const Json& value, const std::vector<std::string>& bounds) {
  constexpr double kLimit = 9223372036854775808.0;    // 2^63
  std::int64_t integer = 0;
  if (value.is_number_unsigned()) {
    if (value.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
    integer = value.get<std::int64_t>();
  } else if (value.is_number_integer()) {
    integer = value.get<std::int64_t>();
  } else if (value.is_number_float()) {
    const auto number = value.get<double>();
    if (number != std::floor(number) || number < -kLimit || number >= kLimit) return std::nullopt;
    integer = static_cast<std::int64_t>(number);
  } else {
    return std::nullopt;
  }
  if (!within(integer, bounds)) return std::nullopt;
  return Json(integer);
}

std::optional<Json> accept_number(const Json& value, const std::vector<std::string>& bounds) {
  if (!value.is_number() || !within(value.get<double>(), bounds)) return std::nullopt;
  return Json(value.get<double>());
}

bool is_path(const Json& value) { return value.is_string() && !value.get<std::string>().empty(); }

// A path, or a list of paths, or a list of paths with weights.
bool is_corpus(const Json& value) {
  if (is_path(value)) return true;
  const auto weighted = [](const Json& file) {
    if (!file.is_object() || file.size() != 2 || !file.contains("path") || !file.contains("weight")) return false;
    const Json& weight = file["weight"];
    return is_path(file["path"]) && weight.is_number() && weight.get<double>() > 0 && std::isfinite(weight.get<double>());
  };
  return value.is_array() && !value.empty() &&
         (std::all_of(value.begin(), value.end(), is_path) || std::all_of(value.begin(), value.end(), weighted));
}

std::string in_words(std::string_view noun, const Key& key) {
  std::string out(noun);
  for (std::size_t i = 0; i < key.bounds.size(); ++i) {
    const std::size_t digits = key.bounds[i].find_first_not_of("<>=");
    out += fmt::format("{} {} {}", i ? " and" : "", key.bounds[i].substr(0, digits), key.bounds[i].substr(digits));
  }
  return out;
}

std::string quoted_list(const std::vector<Json>& values) {
  std::vector<std::string> parts;
  parts.reserve(values.size());
  for (const Json& value : values) parts.push_back(value.is_string() ? quote(value.get<std::string>()) : value.dump());
  return join(parts, ", ");
}

std::string markdown_row(const Key& key) {
  const std::string status = key.status == KeyStatus::used   ? "used"
                             : key.status == KeyStatus::idle ? "idle"
                                                             : fmt::format("only {}", quoted_list(key.only));
  const std::string preset = key.required ? "-" : fmt::format("`{}`", key.preset.dump());
  const std::string doc = (key.status == KeyStatus::refused ? "not built yet: " : "") + key.doc;
  return fmt::format("| `{}` | {} | {} | {} | {} |\n", key.path, key.wanted(), preset, status, doc);
}

}    // namespace

std::optional<Json> Key::accept(const Json& value) const {
  const auto same_if = [&](bool good) { return good ? std::optional<Json>(value) : std::nullopt; };
  if (value.is_null()) return same_if(nullable);
  switch (kind) {
    case KeyKind::integer:
      return accept_integer(value, bounds);
    case KeyKind::number:
      return accept_number(value, bounds);
    case KeyKind::boolean:
      return same_if(value.is_boolean());
    case KeyKind::text:
      return same_if(value.is_string() && (status != KeyStatus::used || !value.get<std::string>().empty()));
    case KeyKind::list:
      return same_if(value.is_array());
    case KeyKind::object:
    case KeyKind::open:
      return same_if(value.is_object());
    case KeyKind::source:
      return same_if(value.is_object() || is_path(value));
    case KeyKind::corpus:
      return same_if(is_corpus(value));
    case KeyKind::pair: {
      if (!value.is_array() || value.size() != 2) return std::nullopt;
      const auto a = accept_number(value[0], bounds), b = accept_number(value[1], bounds);
      return a && b ? std::optional<Json>(Json::array({*a, *b})) : std::nullopt;
    }
    case KeyKind::choice:
      if (value.is_string())
        for (const std::string& choice : choices)
          if (lower(choice) == lower(value.get<std::string>())) return Json(choice);
      return std::nullopt;
  }
  return std::nullopt;
}

bool Key::refuses(const Json& accepted) const {
  return status == KeyStatus::refused && std::find(only.begin(), only.end(), accepted) == only.end();
}

std::string Key::wanted() const {
  const auto noun = [&]() -> std::string {
    switch (kind) {
      case KeyKind::integer:
        return in_words("an integer", *this);
      case KeyKind::number:
        return in_words("a number", *this);
      case KeyKind::boolean:
        return "true or false";
      case KeyKind::text:
        return status == KeyStatus::used ? "a string that is not empty" : "a string";
      case KeyKind::list:
        return "a list";
      case KeyKind::object:
      case KeyKind::open:
        return "an object";
      case KeyKind::source:
        return "a string that is not empty, or an object";
      case KeyKind::corpus:
        return "a path, a list of paths, or a list of {\"path\": ..., \"weight\": a number > 0}";
      case KeyKind::pair:
        return in_words("a list of two numbers", *this);
      // Of many choices that are not built, the built ones are what can be wanted.
      case KeyKind::choice:
        return "one of " + quoted_list(status == KeyStatus::refused ? only : std::vector<Json>(choices.begin(), choices.end()));
    }
    return "";
  };
  const bool says_null = kind == KeyKind::choice && status == KeyStatus::refused;
  return noun() + (nullable && !says_null ? " or null" : "");
}

const std::vector<Key>& config_keys() {
  static const std::vector<Key> keys = [] {
    std::vector<Key> all;
    for (const Row& row : kRows) all.push_back(parse_row(row));
    return all;
  }();
  return keys;
}

const Key* find_key(std::string_view path) {
  static const std::map<std::string_view, const Key*> index = [] {
    std::map<std::string_view, const Key*> all;
    for (const Key& key : config_keys()) SHEAF_CHECK(all.emplace(key.path, &key).second, "config_table.inc: {} is there twice", key.path);
    return all;
  }();
  const auto it = index.find(path);
  return it == index.end() ? nullptr : it->second;
}

std::string table_path(const std::string& path, const std::string& scheduler_type) {
  if (scheduler_type.empty() || !(path + ".").starts_with("scheduler.params.")) return path;
  return fmt::format("scheduler[{}]{}", scheduler_type, path.substr(path.find('.')));
}

bool is_section(std::string_view path) {
  static const std::set<std::string, std::less<>> sections = [] {
    std::set<std::string, std::less<>> all;
    for (const Key& key : config_keys())
      for (std::size_t dot = key.path.find('.'); dot != std::string::npos; dot = key.path.find('.', dot + 1))
        all.insert(key.path.substr(0, dot));
    return all;
  }();
  return sections.contains(path);
}

std::vector<std::string> keys_inside(std::string_view section) {
  std::vector<std::string> names;
  const std::string prefix = section.empty() ? "" : fmt::format("{}.", section);
  for (const Key& key : config_keys()) {
    if (!key.path.starts_with(prefix)) continue;
    const std::string rest = key.path.substr(prefix.size());
    const std::string name = rest.substr(0, rest.find_first_of(".["));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

const std::vector<std::pair<std::string, std::string>>& key_aliases() {
  static const std::vector<std::pair<std::string, std::string>> aliases = {
      {"bfloat16", "bf16"},
      {"tensor_parallel.tensor_parallel", "tensor_parallel.tp"},
      {"tensor_parallel.kernel_inject", "tensor_parallel.replace_with_kernel_inject"},
      {"zero_optimization.prefetch_bucket_size", "zero_optimization.stage3_prefetch_bucket_size"},
      {"zero_optimization.param_persistence_threshold", "zero_optimization.stage3_param_persistence_threshold"},
      {"zero_optimization.model_persistence_threshold", "zero_optimization.stage3_model_persistence_threshold"},
      {"zero_optimization.max_live_parameters", "zero_optimization.stage3_max_live_parameters"},
      {"zero_optimization.max_reuse_distance", "zero_optimization.stage3_max_reuse_distance"},
      {"zero_optimization.gather_16bit_weights_on_model_save", "zero_optimization.stage3_gather_16bit_weights_on_model_save"},
      {"zero_optimization.stage3_gather_fp16_weights_on_model_save", "zero_optimization.stage3_gather_16bit_weights_on_model_save"},
  };
  return aliases;
}

std::string config_markdown() {
  std::string out =
      "# Keys of a run configuration\n\n"
      "<!-- Generated from src/engine/config_table.inc. Do not edit. -->\n\n"
      "One JSON file (comments allowed) holds a run. Any key can be set on the command line as `key.path=value`. \"auto\" means absent.\n"
      "Integers may be written as `5e8`. A default of - means that the key must be given. `scheduler[T]` holds when `scheduler.type` is "
      "T.\n\n"
      "- *used*: does what is said.\n"
      "- *idle*: has no meaning here. It is accepted, checked, and named once when a run starts; it changes neither numbers nor memory.\n"
      "- *only ...*: another value would change numbers or memory and is not built yet: an error that says so. Inside a section whose\n"
      "  `enabled` is false it does not count.\n";
  std::vector<std::string> sections;    // "" holds the keys that are in none
  std::map<std::string, std::string> rows;
  for (const Key& key : config_keys()) {
    const std::size_t end = key.path.find_first_of(".[");
    const std::string section = end != std::string::npos ? key.path.substr(0, end) : is_section(key.path) ? key.path : "";
    if (std::find(sections.begin(), sections.end(), section) == sections.end()) sections.push_back(section);
    rows[section] += markdown_row(key);
  }
  for (const std::string& section : sections)
    out += fmt::format("\n## {}\n\n| key | value | default | status | meaning |\n|---|---|---|---|---|\n{}",
                       section.empty() ? "Top level" : section, rows[section]);
  out += "\n## Other spellings\n\n| spelling | key |\n|---|---|\n";
  for (const auto& [alias, path] : key_aliases()) out += fmt::format("| `{}` | `{}` |\n", alias, path);
  return out;
}

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  constexpr std::size_t kMost = 60;
  if (text.size() <= kMost) return text;
  std::size_t cut = kMost;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;    // not inside a UTF-8 character
  return text.substr(0, cut) + "...";
}

}    // namespace sheaf
