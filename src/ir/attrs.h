#pragma once
// Attributes of nodes and declarations: plan constants, in declaration order. Printed as {eps=1e-06, causal=true}.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace sheaf {

using Bool = bool;
using Int = std::int64_t;
using Float = double;
using Text = std::string;
using Attr = std::variant<Bool, Int, Float, Text>;

class Attrs {
 public:
  Attrs() = default;
  Attrs(std::initializer_list<std::pair<std::string, Attr>> entries) : entries_(entries) {}

  bool has(std::string_view name) const { return find(name) != nullptr; }
  Bool flag(std::string_view name) const { return get<Bool>(name); }
  Int integer(std::string_view name) const { return get<Int>(name); }
  Float number(std::string_view name) const { return get<Float>(name); }
  const Text& text(std::string_view name) const { return get<Text>(name); }
  void set(std::string_view name, Attr value);

  const Attr* find(std::string_view name) const;    // nullptr: none
  const auto& entries() const { return entries_; }
  bool empty() const { return entries_.empty(); }
  bool operator==(const Attrs&) const = default;

 private:
  [[noreturn]] static void absent(std::string_view name);
  template <class T>
  const T& get(std::string_view name) const {
    const Attr* attr = find(name);
    if (!attr || !std::holds_alternative<T>(*attr)) absent(name);
    return std::get<T>(*attr);
  }
  std::vector<std::pair<std::string, Attr>> entries_;
};

// An integer as a number, anything else as it is: "eps=1" in text means 1.0.
Attr as_number(const Attr& attr);

// "{eps=1e-06}". The attribute `rule` of einsum comes first and bare: "{b s k, h k -> b s h; dtype=fp32}". "" if there are none.
std::string print(const Attrs& attrs);
Attrs parse_attrs(std::string_view braces);    // inverse; throws UserError

}    // namespace sheaf
