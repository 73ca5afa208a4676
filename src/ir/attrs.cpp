#include "ir/attrs.h"

#include <charconv>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {

const Attr* Attrs::find(std::string_view name) const {
  for (const auto& [key, value] : entries_)
    if (key == name) return &value;
  return nullptr;
}

void Attrs::absent(std::string_view name) { SHEAF_CHECK(false, "no attribute '{}' of the wanted type", name); }

void Attrs::set(std::string_view name, Attr value) {
  for (auto& [key, old] : entries_)
    if (key == name) {
      old = std::move(value);
      return;
    }
  entries_.emplace_back(name, std::move(value));
}

Attr as_number(const Attr& attr) { return std::holds_alternative<Int>(attr) ? Attr(static_cast<Float>(std::get<Int>(attr))) : attr; }

static std::string print(const Attr& attr) {
  struct Printer {
    std::string operator()(Bool b) const { return b ? "true" : "false"; }
    std::string operator()(Int i) const { return std::to_string(i); }
    std::string operator()(Float f) const { return shortest(f); }
    std::string operator()(const Text& t) const { return t; }
  };
  return std::visit(Printer{}, attr);
}

std::string print(const Attrs& attrs) {
  if (attrs.empty()) return "";
  std::vector<std::string> parts;
  std::string rule;
  for (const auto& [name, value] : attrs.entries()) {
    if (name == "rule")
      rule = print(value);
    else
      parts.push_back(name + "=" + print(value));
  }
  if (rule.empty()) return "{" + join(parts, ", ") + "}";
  return "{" + rule + (parts.empty() ? "" : "; " + join(parts, ", ")) + "}";
}

static Attr parse_attr(const std::string& text) {
  if (text == "true" || text == "false") return text == "true";
  const char *begin = text.data(), *end = begin + text.size();
  Int integer = 0;
  if (const auto r = std::from_chars(begin, end, integer); r.ec == std::errc() && r.ptr == end) return integer;
  Float number = 0;
  if (const auto r = std::from_chars(begin, end, number); r.ec == std::errc() && r.ptr == end) return number;
  return text;
}

Attrs parse_attrs(std::string_view braces) {
  std::string_view text = trimmed(braces);
  if (text.size() < 2 || text.front() != '{' || text.back() != '}') user_error("attributes {}: wanted {{name=value, ...}}", quote(text));
  text = text.substr(1, text.size() - 2);
  Attrs attrs;
  if (text.find("->") != std::string_view::npos) {
    const std::size_t end = text.find(';');
    attrs.set("rule", Text(trimmed(text.substr(0, end))));
    text = end == std::string_view::npos ? "" : text.substr(end + 1);
  }
  for (const std::string& part : split(trimmed(text), ',')) {
    const std::size_t equals = part.find('=');
    if (equals == std::string::npos) user_error("attribute {}: wanted name=value", quote(trimmed(part)));
    attrs.set(trimmed(std::string_view(part).substr(0, equals)), parse_attr(std::string(trimmed(part.substr(equals + 1)))));
  }
  return attrs;
}

}    // namespace sheaf
