#pragma once
// A compiled pattern of tokenizer.json. Any number of threads may search at once.
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/pattern.h"

struct pcre2_real_code_8;    // pcre2_code of <pcre2.h>

namespace sheaf {

class Regex {
 public:
  struct Match {
    std::size_t begin, end;
  };
  enum class Found { no, yes, undecided };

  Regex(Pattern pattern, const std::string& where);    // throws UserError for what PCRE2 cannot compile

  // The first match that begins at `from` or later, in valid UTF-8. Throws UserError when the pattern backtracks without end.
  std::optional<Match> find(std::string_view text, std::size_t from) const;
  // The same where the text may go on: undecided if what the text's end hides could change the answer.
  Found find_open(std::string_view text, Match& match) const;

  // A match depends on nothing before it and on at most one character after it, and is not empty.
  bool is_local() const { return pattern_.local; }
  // No match holds `a` followed by `b`. For a few calls per megabyte: it matches both with every atom.
  bool separates(char32_t a, char32_t b) const;

 private:
  struct CodeFree {
    void operator()(pcre2_real_code_8* code) const;
  };
  using Code = std::unique_ptr<pcre2_real_code_8, CodeFree>;
  static Code compile(const std::string& pattern, const std::string& where);
  int search(const pcre2_real_code_8* code, std::string_view text, std::size_t from, std::uint32_t options, Match& match) const;
  AtomSet atoms_of(char32_t c) const;

  Pattern pattern_;
  std::string where_;
  Code code_;
  std::vector<Code> atoms_;
  bool jit_ = false;
};

}    // namespace sheaf
