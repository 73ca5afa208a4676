#pragma once
// The list `added_tokens`: tokens that are found in text before the model sees it.
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sheaf {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool single_word = false, lstrip = false, rstrip = false, normalized = true, special = false;
};

// Finds tokens in text: the leftmost, and of those the longest.
class TokenMatcher {
 public:
  void add(std::string_view pattern, const AddedToken& token);    // not empty; the first of equal patterns holds

  // Cuts the text: token(id) for what is found, text(begin, end) for what is between.
  template <class Text, class Token>
  void split(std::string_view text, Text&& on_text, Token&& on_token) const;

  bool empty() const { return patterns_.empty(); }
  std::size_t longest() const { return longest_; }    // bytes of a pattern
  bool strips() const { return strips_; }             // some token takes white space around it
  // Bytes of the longest pattern that lies at `at`; 0: none.
  std::size_t match(std::string_view text, std::size_t at, std::int32_t* which = nullptr) const;

 private:
  struct Node {
    std::int32_t child = -1, sibling = -1, pattern = -1;
    char byte = 0;
  };
  struct Span {
    std::size_t begin, end;
    std::int32_t id;
  };
  std::optional<Span> next(std::string_view text, std::size_t& from, std::size_t taken) const;

  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<bool, 256> starts_{};
  char only_start_ = 0;
  int start_count_ = 0;
  std::vector<AddedToken> patterns_;
  std::size_t longest_ = 0;
  bool strips_ = false;
};

template <class Text, class Token>
void TokenMatcher::split(std::string_view text, Text&& on_text, Token&& on_token) const {
  std::size_t taken = 0, from = 0;
  while (!patterns_.empty()) {
    const auto found = next(text, from, taken);
    if (!found) break;
    if (taken < found->begin) on_text(taken, found->begin);
    on_token(found->id, found->begin);
    taken = found->end;
  }
  if (taken < text.size()) on_text(taken, text.size());
}

}    // namespace sheaf
