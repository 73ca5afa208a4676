#pragma once
// Patterns of tokenizer.json are written for Oniguruma (Ruby's syntax, Unicode 16). This translates them for PCRE2, and finds out which
// characters can follow each other inside a match.
#include <bitset>
#include <string>
#include <string_view>
#include <vector>

namespace sheaf {

constexpr std::size_t kMaxPatternAtoms = 256;
using AtomSet = std::bitset<kMaxPatternAtoms>;

struct Pattern {
  std::string pcre2;    // for PCRE2_UTF | PCRE2_UCP; its only groups do not capture

  // The atoms are the places of the pattern that take one character each, as PCRE2 patterns of one character. In no match, and in no
  // attempt at one, is a character of atom i followed by one of atom j unless follow[i] has j (Glushkov's construction).
  std::vector<std::string> atoms;
  std::vector<AtomSet> follow;

  // A match depends on nothing before it and on at most one character after it, and is not empty.
  bool local = true;
};

// Throws UserError, beginning with `where`, for what Oniguruma and PCRE2 may read differently, by name.
Pattern translate_pattern(std::string_view oniguruma, const std::string& where);
// The pattern that matches exactly this text.
Pattern literal_pattern(std::string_view text, const std::string& where);

}    // namespace sheaf
