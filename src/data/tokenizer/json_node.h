#pragma once
// A value of a JSON file with its path, so that errors say where.
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace sheaf {

class JsonNode {
 public:
  JsonNode(const LargeJson& value, std::string where) : value_(&value), where_(std::move(where)) {}

  const LargeJson& json() const { return *value_; }
  const std::string& where() const { return where_; }    // "tokenizer.json: model.merges[3]"
  bool is_null() const { return value_->is_null(); }

  template <class... A>
  [[noreturn]] void fail(fmt::format_string<A...> format, A&&... args) const {
    throw UserError(where_ + ": " + fmt::format(format, std::forward<A>(args)...));
  }

  // A member; absent and null are the same.
  std::optional<JsonNode> find(const std::string& key) const {
    if (!value_->is_object()) wrong_type("an object");
    const auto found = value_->find(key);
    if (found == value_->end() || found->is_null()) return std::nullopt;
    return JsonNode(*found, where_ + (where_.ends_with(":") ? " " : ".") + key);
  }
  JsonNode at(const std::string& key) const {
    const auto found = find(key);
    if (!found) fail("{} is missing", quote(key));
    return *found;
  }
  JsonNode at(std::size_t i) const { return JsonNode((*value_)[i], fmt::format("{}[{}]", where_, i)); }
  std::size_t size() const {    // of a list
    if (!value_->is_array()) wrong_type("a list");
    return value_->size();
  }
  const std::string& text() const {
    if (!value_->is_string()) wrong_type("a string");
    return value_->get_ref<const std::string&>();
  }
  bool boolean() const {
    if (!value_->is_boolean()) wrong_type("true or false");
    return value_->get<bool>();
  }
  std::int32_t integer() const {    // 0 to 2^31 - 1
    if (!value_->is_number_unsigned() || value_->get<std::uint64_t>() > 0x7FFFFFFF) wrong_type("an integer from 0 to 2147483647");
    return value_->get<std::int32_t>();
  }
  bool boolean(const std::string& key, bool absent) const {
    const auto found = find(key);
    return found ? found->boolean() : absent;
  }
  std::string type() const { return at("type").text(); }

  // Every key is one of these: nothing that a file says is skipped.
  void check_keys(std::initializer_list<std::string_view> known) const {
    if (!value_->is_object()) wrong_type("an object");
    for (const auto& [key, ignored] : value_->items()) {
      const std::vector<std::string> names(known.begin(), known.end());
      if (std::find(known.begin(), known.end(), key) == known.end())
        fail("the key {} is not supported{}", quote(key.substr(0, 100)), did_you_mean(key, names));
    }
  }
  [[noreturn]] void wrong_type(std::string_view wanted) const { fail("is {}, {} was wanted", json_type(*value_), wanted); }

 private:
  const LargeJson* value_;
  std::string where_;
};

}    // namespace sheaf
