#pragma once
// Typed access to the keys of a HF config.json. null counts as missing, as it does for HF. Every error names the file, the key and the
// value.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace sheaf {

class ConfigReader {
 public:
  ConfigReader(const Json& object, std::string where);    // where: "config.json"; throws UserError unless it is an object

  const Json* find(const std::string& key) const;    // nullptr: missing or null
  bool has(const std::string& key) const { return find(key) != nullptr; }
  const Json& json() const { return object_; }
  const std::string& where() const { return where_; }

  std::optional<std::int64_t> integer(const std::string& key) const;
  std::optional<double> number(const std::string& key) const;
  std::optional<bool> flag(const std::string& key) const;
  std::optional<std::string> text(const std::string& key) const;
  std::optional<std::vector<double>> numbers(const std::string& key) const;
  std::optional<std::int64_t> first_integer(const std::string& key) const;    // of an integer or a list of them

  // A size: 1 to 2^31 - 1, so that a product of two fits.
  std::int64_t size(const std::string& key) const;
  std::int64_t size(const std::string& key, std::int64_t otherwise) const;
  double required_number(const std::string& key) const;
  double non_negative(const std::string& key, double otherwise) const;

  // "config.json: 'hidden_act' is 'tanh'; WANTED"
  [[noreturn]] void refuse(const std::string& key, const std::string& wanted) const;
  [[noreturn]] void missing(const std::string& key) const;

 private:
  const Json& object_;
  std::string where_;
};

}    // namespace sheaf
