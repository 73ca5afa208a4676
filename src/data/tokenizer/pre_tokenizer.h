#pragma once
// The section `pre_tokenizer`: how text is split into words, which no merge leaves.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/json_node.h"
#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/regex.h"

namespace sheaf {

class PreTokenizer {
 public:
  PreTokenizer() = default;
  explicit PreTokenizer(const JsonNode& node);    // throws UserError

  bool byte_level() const { return byte_level_; }    // words are spelled in the byte-level alphabet

  // What is done to the text before the first split; `at_text_start`: nothing is before it, not even an added token.
  std::string_view prepare(std::string_view text, bool is_start, bool at_text_start, std::string& buffer) const;
  const Normalizer& preparation() const { return prepare_; }

  // Calls word(std::string_view) for each word of prepared text, in order, until it returns false. Words are not empty; where a text may
  // be cut (cut() gives anything but `crosses`) they point into `text`.
  template <class Word>
  bool split(std::string_view text, bool at_text_start, Word&& word) const {
    return split_from(0, text, at_text_start, word);
  }

  // What happens between prepared text that ends with `before`, and `rest`, after which the text may go on. splits: a word ends there, and
  // the words of the two sides are those of the whole. unsplit: the place lies inside a word, and the words around it are those of the
  // whole. crosses: neither is sure.
  enum class Cut { splits, unsplit, crosses };
  bool may_be_cut() const;    // false: crosses, everywhere
  Cut cut(char32_t before, std::string_view rest) const;

 private:
  enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
  struct Stage {
    std::shared_ptr<const Regex> regex;    // nullptr: no split
    Behavior behavior = Behavior::isolated;
    bool invert = false;
    Normalizer change;                  // of each piece, before the split
    bool only_at_text_start = false;    // of what `change` puts before a piece
  };
  struct Span {
    std::size_t begin, end;
    bool is_match;
  };

  void add(const JsonNode& node, int depth);
  void add_split(Regex regex, Behavior behavior, bool invert);
  void add_change(Normalizer change, bool only_at_text_start);

  // Matches and what is between them, in order; empty matches too.
  template <class F>
  static bool spans(const Regex& regex, std::string_view text, F&& on_span);
  template <class F>
  static bool pieces(const Stage& stage, std::string_view text, F&& on_piece);
  template <class Word>
  bool split_from(std::size_t stage, std::string_view text, bool at_text_start, Word& word) const;

  Normalizer prepare_;
  bool prepare_only_at_text_start_ = false;
  std::vector<Stage> stages_;
  bool byte_level_ = false;
};

template <class F>
bool PreTokenizer::spans(const Regex& regex, std::string_view text, F&& on_span) {
  std::size_t done = 0, from = 0;
  bool matched = false;
  while (from <= text.size()) {
    const auto match = regex.find(text, from);
    if (!match) break;
    const bool is_empty = match->begin == match->end;
    if (!(is_empty && matched && match->end == done)) {    // no empty match right after a match
      if (done < match->begin && !on_span(Span{done, match->begin, false})) return false;
      if (!on_span(Span{match->begin, match->end, true})) return false;
      done = match->end;
      matched = true;
    }
    from = match->end;
    if (is_empty) {
      do ++from;
      while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80);
    }
  }
  return done >= text.size() || on_span(Span{done, text.size(), false});
}

template <class F>
bool PreTokenizer::pieces(const Stage& stage, std::string_view text, F&& on_piece) {
  const auto give = [&](const Span& s) { return s.begin == s.end || on_piece(text.substr(s.begin, s.end - s.begin)); };
  if (stage.behavior == Behavior::isolated) return spans(*stage.regex, text, give);
  if (stage.behavior == Behavior::removed)
    return spans(*stage.regex, text, [&](const Span& s) { return s.is_match != stage.invert || give(s); });
  // The others join a span with its neighbour: `held` is what the next may still join.
  Span held{0, 0, false};
  bool holds = false, last_was_match = false;
  const bool good = spans(*stage.regex, text, [&](Span s) {
    s.is_match = s.is_match != stage.invert;
    bool join = false;
    if (stage.behavior == Behavior::contiguous) join = s.is_match == last_was_match;
    if (stage.behavior == Behavior::merged_with_previous) join = s.is_match && !last_was_match;
    if (stage.behavior == Behavior::merged_with_next) join = !s.is_match && last_was_match;
    last_was_match = s.is_match;
    if (join && holds) {
      held.end = s.end;
      return true;
    }
    if (holds && !give(held)) return false;
    held = s;
    holds = true;
    return true;
  });
  return good && (!holds || give(held));
}

template <class Word>
bool PreTokenizer::split_from(std::size_t i, std::string_view text, bool at_text_start, Word& word) const {
  if (i == stages_.size()) return text.empty() || word(text);
  const Stage& stage = stages_[i];
  std::string buffer;
  if (!stage.change.is_identity()) text = stage.change.run(text, at_text_start || !stage.only_at_text_start, buffer);
  if (!stage.regex) return split_from(i + 1, text, at_text_start, word);
  const char* start = text.data();
  return pieces(stage, text,
                [&](std::string_view piece) { return split_from(i + 1, piece, at_text_start && piece.data() == start, word); });
}

}    // namespace sheaf
