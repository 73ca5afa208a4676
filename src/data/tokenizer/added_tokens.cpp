#include "data/tokenizer/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/regex.h"
#include "data/tokenizer/utf8.h"

namespace sheaf {

namespace {

bool is_word_char(std::string_view one_char) {
  // What UTS 18 calls a word character, as Rust has it: unlike Oniguruma's \w it has the joiners, and not all numbers.
  static const Regex word(translate_pattern("[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}Ⓐ-ⓩ\\u200c\\u200d\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}"
                                            "\\x{1f170}-\\x{1f189}]",
                                            "words"),
                          "words");
  return word.find(one_char, 0).has_value();
}
bool ends_with_word(std::string_view text) { return !text.empty() && is_word_char(text.substr(last_utf8_char(text))); }
bool starts_with_word(std::string_view text) { return !text.empty() && is_word_char(text.substr(0, utf8_at(text, 0).size)); }

}    // namespace

void TokenMatcher::add(std::string_view pattern, const AddedToken& token) {
  std::int32_t node = 0;
  for (const char byte : pattern) {
    std::int32_t child = nodes_[static_cast<std::size_t>(node)].child;
    while (child >= 0 && nodes_[static_cast<std::size_t>(child)].byte != byte) child = nodes_[static_cast<std::size_t>(child)].sibling;
    if (child < 0) {
      child = static_cast<std::int32_t>(nodes_.size());
      nodes_.push_back({-1, nodes_[static_cast<std::size_t>(node)].child, -1, byte});
      nodes_[static_cast<std::size_t>(node)].child = child;
    }
    node = child;
  }
  if (nodes_[static_cast<std::size_t>(node)].pattern >= 0) return;
  nodes_[static_cast<std::size_t>(node)].pattern = static_cast<std::int32_t>(patterns_.size());
  patterns_.push_back(token);
  if (!std::exchange(starts_[static_cast<unsigned char>(pattern[0])], true)) ++start_count_;
  only_start_ = pattern[0];
  longest_ = std::max(longest_, pattern.size());
  strips_ = strips_ || token.lstrip || token.rstrip;
}

std::size_t TokenMatcher::match(std::string_view text, std::size_t at, std::int32_t* which) const {
  std::size_t longest = 0;
  std::int32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    std::int32_t child = nodes_[static_cast<std::size_t>(node)].child;
    while (child >= 0 && nodes_[static_cast<std::size_t>(child)].byte != text[i]) child = nodes_[static_cast<std::size_t>(child)].sibling;
    if (child < 0) break;
    node = child;
    if (const std::int32_t pattern = nodes_[static_cast<std::size_t>(node)].pattern; pattern >= 0) {
      longest = i + 1 - at;
      if (which) *which = pattern;
    }
  }
  return longest;
}

// The next token at `from` or later, with the white space that it takes; `taken`: what the token before it has taken ends there.
std::optional<TokenMatcher::Span> TokenMatcher::next(std::string_view text, std::size_t& from, std::size_t taken) const {
  while (from < text.size()) {
    if (start_count_ == 1) {
      const void* found = std::memchr(text.data() + from, only_start_, text.size() - from);
      if (!found) break;
      from = static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
    } else {
      while (from < text.size() && !starts_[static_cast<unsigned char>(text[from])]) ++from;
    }
    std::int32_t which = -1;
    const std::size_t size = match(text, from, &which);
    if (size == 0) {
      ++from;
      continue;
    }
    std::size_t begin = from, end = from + size;
    from = end;
    const AddedToken& token = patterns_[static_cast<std::size_t>(which)];
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    if (token.lstrip) {
      while (begin > 0 && is_white_space(utf8_at(text, last_utf8_char(text.substr(0, begin))).code))
        begin = last_utf8_char(text.substr(0, begin));
      begin = std::max(begin, taken);
    }
    if (token.rstrip)
      while (end < text.size() && is_white_space(utf8_at(text, end).code)) end += utf8_at(text, end).size;
    return Span{begin, end, token.id};
  }
  from = text.size();
  return std::nullopt;
}

}    // namespace sheaf
