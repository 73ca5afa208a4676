#pragma once
// The section `normalizer`: what is done to text before it is split into words.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/json_node.h"
#include "data/tokenizer/regex.h"

namespace sheaf {

class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(const JsonNode& node) { add(node); }    // throws UserError

  // Spaces become `replacement`, which also goes before the text if it does not begin with it: what Metaspace does first.
  void add_metaspace(const std::string& replacement, bool prepend);
  void add_prefix_space();    // a space before text that does not begin with one

  // `text`, or what it becomes in `buffer`. `is_start` is false where the text continues one: nothing is put before it.
  // `removed_start`, if given, is set when the text lost characters at its begin.
  std::string_view run(std::string_view text, bool is_start, std::string& buffer, bool* removed_start = nullptr) const;
  bool is_identity() const { return steps_.empty(); }

  bool may_be_cut() const;    // false: nowhere
  // Text may be cut before `c` (with anything before): the parts give the same, one after the other.
  bool may_cut_before(char32_t c) const;

 private:
  enum class Kind { nfc, nfd, nfkc, nfkd, replace_text, replace_regex, prepend, prepend_if_absent, strip, lowercase };
  struct Step {
    Kind kind;
    std::string pattern, content;
    std::shared_ptr<const Regex> regex;
    bool left = true, right = true;
  };
  void add(const JsonNode& node, int depth = 0);
  bool apply(const Step& step, std::string_view text, bool is_start, std::string& out, bool* removed_start) const;

  std::vector<Step> steps_;
};

bool is_white_space(char32_t c);    // Unicode's White_Space

}    // namespace sheaf
