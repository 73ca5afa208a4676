#include "models/config_reader.h"

#include <limits>

#include "base/text.h"

namespace sheaf {

ConfigReader::ConfigReader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) user_error("{}: is {}, an object was wanted", where_, json_type(object));
}

const Json* ConfigReader::find(const std::string& key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void ConfigReader::refuse(const std::string& key, const std::string& wanted) const {
  std::string shown = object_.at(key).dump();
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  user_error("{}: {} is {}; {}", where_, quote(key), shown, wanted);
}

void ConfigReader::missing(const std::string& key) const { user_error("{}: {} is missing", where_, quote(key)); }

static bool fits(const Json& value) {
  return value.is_number_integer() &&
         !(value.is_number_unsigned() && value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max());
}

std::optional<std::int64_t> ConfigReader::integer(const std::string& key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!fits(*value)) refuse(key, "an integer was wanted");
  return value->get<std::int64_t>();
}

std::optional<double> ConfigReader::number(const std::string& key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_number()) refuse(key, "a number was wanted");
  return value->get<double>();
}

std::optional<bool> ConfigReader::flag(const std::string& key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) refuse(key, "true or false was wanted");
  return value->get<bool>();
}

std::optional<std::string> ConfigReader::text(const std::string& key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_string()) refuse(key, "a string was wanted");
  return value->get<std::string>();
}

std::optional<std::vector<double>> ConfigReader::numbers(const std::string& key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_array()) refuse(key, "a list of numbers was wanted");
  std::vector<double> out;
  for (const Json& item : *value) {
    if (!item.is_number()) refuse(key, "a list of numbers was wanted");
    out.push_back(item.get<double>());
  }
  return out;
}

std::optional<std::int64_t> ConfigReader::first_integer(const std::string& key) const {
  const Json* value = find(key);
  if (!value || !value->is_array()) return integer(key);
  for (const Json& item : *value)
    if (!fits(item)) refuse(key, "an integer or a list of integers was wanted");
  return value->empty() ? std::nullopt : std::optional(value->front().get<std::int64_t>());
}

std::int64_t ConfigReader::size(const std::string& key) const {
  const auto value = integer(key);
  if (!value) missing(key);
  if (*value < 1 || *value > std::numeric_limits<std::int32_t>::max()) refuse(key, "a positive integer below 2^31 was wanted");
  return *value;
}

std::int64_t ConfigReader::size(const std::string& key, std::int64_t otherwise) const { return has(key) ? size(key) : otherwise; }

double ConfigReader::required_number(const std::string& key) const {
  const auto value = number(key);
  if (!value) missing(key);
  return *value;
}

double ConfigReader::non_negative(const std::string& key, double otherwise) const {
  const double value = number(key).value_or(otherwise);
  if (!(value >= 0)) refuse(key, "a number of at least 0 was wanted");
  return value;
}

}    // namespace sheaf
