#include "data/text_source.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "data/scan.h"

namespace sheaf {
namespace {

std::span<const std::uint8_t> as_numbers(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

// The document of one line; `where` is FILE:LINE.
std::string text_of_line(std::string_view line, const std::string& field, const std::string& where) {
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(line);
  } catch (const nlohmann::json::parse_error& error) {
    std::string what = error.what();    // "[json.exception.parse_error.101] parse error at line 1, column 2: what is meant"
    if (const std::size_t colon = what.find(": "); colon != std::string::npos) what = what.substr(colon + 2);
    user_error("{}:{}: not JSON: {}", where, error.byte, what.substr(0, 200));
  }
  if (!object.is_object()) user_error("{}: is {}, an object with the text in {} was wanted", where, json_type(object), quote(field));
  const auto found = object.find(field);
  if (found == object.end()) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : object.items()) keys.push_back(quote(key));
    if (keys.size() > 8) keys.resize(8);
    user_error("{}: has no field {}; it has {}", where, quote(field), keys.empty() ? "none" : join(keys, ", "));
  }
  if (!found->is_string()) user_error("{}: field {} is {}, a string was wanted", where, quote(field), json_type(*found));
  return std::move(found->get_ref<std::string&>());
}

}    // namespace

TextSource::TextSource(const std::string& path, const TokenOptions& options)
    : TokenSource(path), file_(path), end_of_text_(options.end_of_text) {
  const auto ids = as_numbers(file_.bytes());
  if (const std::int64_t at = first_not_below(ids, options.vocab); at >= 0)
    user_error("{}: byte {} is {}, but the model's vocabulary has {} ids", path, at, ids[static_cast<std::size_t>(at)], options.vocab);
}

void TextSource::read(std::int64_t begin, std::span<std::int32_t> out) const {
  SHEAF_CHECK(begin >= 0 && begin + std::ssize(out) <= size(), "tokens from {}, {} of them, of {}", begin, out.size(), size());
  const auto all = as_numbers(file_.bytes());
  const auto ids = all.subspan(std::min(static_cast<std::size_t>(begin), all.size()));
  std::copy_n(ids.begin(), std::min(ids.size(), out.size()), out.begin());
  if (out.size() > ids.size()) out.back() = end_of_text_;
}

JsonlSource::JsonlSource(const std::string& path, const TokenOptions& options) : TokenSource(path), end_of_text_(options.end_of_text) {
  const MappedFile file(path);
  const std::string_view all(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  std::int64_t number = 0;
  for (std::size_t begin = 0; begin < all.size();) {
    const std::size_t end = std::min(all.find('\n', begin), all.size());
    const std::string_view line = trimmed(all.substr(begin, end - begin));
    begin = end + 1;
    ++number;
    if (line.empty()) continue;
    const std::string where = fmt::format("{}:{}", path, number);
    const std::string text = text_of_line(line, options.field, where);
    const std::span ids(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
    if (const std::int64_t at = first_not_below(ids, options.vocab); at >= 0)
      user_error("{}: byte {} of the text is {}, but the model's vocabulary has {} ids", where, at, ids[static_cast<std::size_t>(at)],
                 options.vocab);
    text_ += text;
    text_ += '\0';
    begins_.push_back(static_cast<std::int64_t>(text_.size()));
  }
}

void JsonlSource::read(std::int64_t begin, std::span<std::int32_t> out) const {
  SHEAF_CHECK(begin >= 0 && begin + std::ssize(out) <= size(), "tokens from {}, {} of them, of {}", begin, out.size(), size());
  std::transform(text_.begin() + begin, text_.begin() + begin + std::ssize(out), out.begin(),
                 [](char c) { return static_cast<std::int32_t>(static_cast<unsigned char>(c)); });
  // The ends of documents inside: each is the last token before a begin.
  for (auto next = std::upper_bound(begins_.begin(), begins_.end(), begin); next != begins_.end() && *next <= begin + std::ssize(out);
       ++next)
    out[static_cast<std::size_t>(*next - 1 - begin)] = end_of_text_;
}

}    // namespace sheaf
