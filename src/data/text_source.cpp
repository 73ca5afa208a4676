#include "data/text_source.h"

#include <algorithm>

#include "base/error.h"
#include "data/scan.h"

namespace sheaf {
namespace {

std::span<const std::uint8_t> as_numbers(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

}    // namespace

TextSource::TextSource(const std::string& path, std::int64_t vocab, std::int32_t end_of_text)
    : TokenSource(path), file_(path), end_of_text_(end_of_text) {
  const auto ids = as_numbers(file_.bytes());
  if (const std::int64_t at = first_not_below(ids, vocab); at >= 0)
    user_error("{}: byte {} is {}, but the model's vocabulary has {} ids", path, at, ids[static_cast<std::size_t>(at)], vocab);
}

void TextSource::read(std::int64_t begin, std::span<std::int32_t> out) const {
  SHEAF_CHECK(begin >= 0 && begin + std::ssize(out) <= size(), "tokens from {}, {} of them, of {}", begin, out.size(), size());
  const auto all = as_numbers(file_.bytes());
  const auto ids = all.subspan(std::min(static_cast<std::size_t>(begin), all.size()));
  std::copy_n(ids.begin(), std::min(ids.size(), out.size()), out.begin());
  if (out.size() > ids.size()) out.back() = end_of_text_;
}

}    // namespace sheaf
