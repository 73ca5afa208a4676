#include "data/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/text.h"
#include "data/tokenizer/utf8.h"

namespace sheaf {

namespace {

constexpr int kMaxDepth = 16;    // of Sequence in Sequence

// What ByteLevel splits by where `use_regex` holds: GPT-2's pattern (Radford et al. 2019).
constexpr std::string_view kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}    // namespace

PreTokenizer::PreTokenizer(const JsonNode& node) { add(node, 0); }

void PreTokenizer::add_split(Regex regex, Behavior behavior, bool invert) {
  if (stages_.empty() || stages_.back().regex) stages_.emplace_back();
  Stage& stage = stages_.back();
  stage.regex = std::make_shared<const Regex>(std::move(regex));
  stage.behavior = behavior;
  stage.invert = invert;
}

void PreTokenizer::add_change(Normalizer change, bool only_at_text_start) {
  if (stages_.empty() && prepare_.is_identity()) {
    prepare_ = std::move(change);
    prepare_only_at_text_start_ = only_at_text_start;
    return;
  }
  stages_.emplace_back();
  stages_.back().change = std::move(change);
  stages_.back().only_at_text_start = only_at_text_start;
}

void PreTokenizer::add(const JsonNode& node, int depth) {
  if (depth > kMaxDepth) node.fail("Sequence nested too deep");
  const std::string type = node.type();
  if (byte_level_) node.fail("{} after ByteLevel is not supported: ByteLevel must be the last", type);
  if (type == "Sequence") {
    node.check_keys({"type", "pretokenizers"});
    const JsonNode list = node.at("pretokenizers");
    for (std::size_t i = 0; i < list.size(); ++i) add(list.at(i), depth + 1);
  } else if (type == "ByteLevel") {
    node.check_keys({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    if (node.at("add_prefix_space").boolean()) {
      Normalizer change;
      change.add_prefix_space();
      add_change(std::move(change), false);
    }
    if (node.boolean("use_regex", true))
      add_split(Regex(translate_pattern(kGpt2Pattern, node.where()), node.where()), Behavior::isolated, false);
    byte_level_ = true;
  } else if (type == "Digits") {
    node.check_keys({"type", "individual_digits"});
    const bool individual = node.at("individual_digits").boolean();
    add_split(Regex(translate_pattern("\\p{N}", node.where()), node.where()), individual ? Behavior::isolated : Behavior::contiguous,
              false);
  } else if (type == "Split") {
    node.check_keys({"type", "pattern", "behavior", "invert"});
    const JsonNode pattern = node.at("pattern"), behavior = node.at("behavior");
    pattern.check_keys({"String", "Regex"});
    constexpr std::array<std::pair<std::string_view, Behavior>, 5> kBehaviors{{{"Removed", Behavior::removed},
                                                                               {"Isolated", Behavior::isolated},
                                                                               {"MergedWithPrevious", Behavior::merged_with_previous},
                                                                               {"MergedWithNext", Behavior::merged_with_next},
                                                                               {"Contiguous", Behavior::contiguous}}};
    const auto* known = std::find_if(kBehaviors.begin(), kBehaviors.end(), [&](const auto& b) { return b.first == behavior.text(); });
    if (known == kBehaviors.end())
      behavior.fail("{} is not supported; these are: Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous",
                    quote(behavior.text()));
    const auto literal = pattern.find("String");
    const JsonNode given = literal ? *literal : pattern.at("Regex");
    if (given.text().empty()) given.fail("is empty");
    add_split(Regex(literal ? literal_pattern(given.text(), given.where()) : translate_pattern(given.text(), given.where()), given.where()),
              known->second, node.at("invert").boolean());
  } else if (type == "Metaspace") {
    node.check_keys({"type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep"});
    const std::string& replacement = node.at("replacement").text();
    if (replacement.empty() || utf8_at(replacement, 0).size != replacement.size())
      node.at("replacement").fail("{} is not one character", quote(replacement));
    const auto scheme = node.find("prepend_scheme");
    const bool old_prepends = node.boolean("add_prefix_space", true);
    const std::string prepend = scheme ? scheme->text() : old_prepends ? "always" : "never";
    if (prepend != "always" && prepend != "first" && prepend != "never")
      scheme->fail("{} is not supported; these are: always, first, never", quote(prepend));
    if (scheme && !old_prepends && prepend != "never") scheme->fail("is {}, but add_prefix_space is false", quote(prepend));
    Normalizer change;
    change.add_metaspace(replacement, prepend != "never");
    add_change(std::move(change), prepend == "first");
    if (node.boolean("split", true))
      add_split(Regex(literal_pattern(replacement, node.where()), node.where()), Behavior::merged_with_next, false);
  } else {
    node.at("type").fail("{} is not supported; these are: ByteLevel, Digits, Metaspace, Sequence, Split", quote(type));
  }
}

std::string_view PreTokenizer::prepare(std::string_view text, bool is_start, bool at_text_start, std::string& buffer) const {
  return prepare_.run(text, is_start && (at_text_start || !prepare_only_at_text_start_), buffer);
}

bool PreTokenizer::may_be_cut() const {
  return std::all_of(stages_.begin(), stages_.end(),
                     [](const Stage& s) { return s.change.is_identity() && s.regex && s.regex->is_local(); });
}

PreTokenizer::Cut PreTokenizer::cut(char32_t before, std::string_view rest) const {
  if (!may_be_cut()) return Cut::crosses;
  for (const Stage& stage : stages_)
    if (!stage.regex->separates(before, utf8_at(rest, 0).code)) return Cut::crosses;
  bool open = true;    // the text may go on after `rest`: each stage sees it up to the next split of the stages before
  for (const Stage& stage : stages_) {
    Regex::Match match{};
    if (open) {
      const Regex::Found found = stage.regex->find_open(rest, match);
      if (found == Regex::Found::undecided) return Cut::crosses;
      if (found == Regex::Found::no) continue;
    } else if (const auto found = stage.regex->find(rest, 0)) {
      match = *found;
    } else {
      continue;
    }
    const bool joins_neighbours =
        stage.behavior == Behavior::merged_with_previous || (stage.behavior == Behavior::merged_with_next && stage.invert);
    if (joins_neighbours || (match.begin == 0 && stage.behavior == Behavior::contiguous)) return Cut::crosses;
    if (match.begin == 0) return Cut::splits;
    rest = rest.substr(0, match.begin);
    open = false;
  }
  return Cut::unsplit;
}

}    // namespace sheaf
