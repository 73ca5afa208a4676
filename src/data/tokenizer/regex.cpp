#include "data/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "data/tokenizer/utf8.h"

namespace sheaf {

namespace {

constexpr std::size_t kJitStackStart = 32 << 10, kJitStackMost = 16 << 20;

// What a search writes to. One a thread, for all patterns: none of them captures.
struct Scratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMost, nullptr);

  Scratch() {
    SHEAF_CHECK(data && context, "out of memory");
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

Scratch& scratch() {
  thread_local Scratch one;
  return one;
}

std::string message(int error) {
  std::array<PCRE2_UCHAR, 200> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}    // namespace

void Regex::CodeFree::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

Regex::Code Regex::compile(const std::string& pattern, const std::string& where) {
  int error = 0;
  PCRE2_SIZE at = 0;
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(pcre2_compile_context_create(nullptr),
                                                                                         pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error, &at, context.get()));
  if (!code) user_error("{}: the pattern cannot be compiled: {}", where, message(error));
  return code;
}

Regex::Regex(Pattern pattern, const std::string& where) : pattern_(std::move(pattern)), where_(where) {
  code_ = compile(pattern_.pcre2, where);
  jit_ = pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD) == 0;
  if (pattern_.local)
    for (const std::string& atom : pattern_.atoms) atoms_.push_back(compile(atom, where));
}

int Regex::search(const pcre2_real_code_8* code, std::string_view text, std::size_t from, std::uint32_t options, Match& match) const {
  Scratch& s = scratch();
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const int rc = jit_ && code == code_.get()
                     ? pcre2_jit_match(code, subject, text.size(), from, options, s.data, s.context)
                     : pcre2_match(code, subject, text.size(), from, options | PCRE2_NO_UTF_CHECK, s.data, s.context);
  if (rc == PCRE2_ERROR_NOMATCH || rc == PCRE2_ERROR_PARTIAL) return rc;
  if (rc < 0) user_error("{}: the pattern gave up on a text of {}: {}", where_, human_bytes(static_cast<double>(text.size())), message(rc));
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(s.data);
  match = {ends[0], ends[1]};
  return 1;
}

std::optional<Regex::Match> Regex::find(std::string_view text, std::size_t from) const {
  Match match;
  if (search(code_.get(), text, from, 0, match) < 0) return std::nullopt;
  return match;
}

Regex::Found Regex::find_open(std::string_view text, Match& match) const {
  const int rc = search(code_.get(), text, 0, PCRE2_PARTIAL_HARD, match);
  return rc == PCRE2_ERROR_PARTIAL ? Found::undecided : rc < 0 ? Found::no : Found::yes;
}

AtomSet Regex::atoms_of(char32_t c) const {
  std::string text;
  append_utf8(c, text);
  AtomSet set;
  for (std::size_t i = 0; i < atoms_.size(); ++i) {
    Match ignored;
    set[i] = search(atoms_[i].get(), text, 0, 0, ignored) > 0;
  }
  return set;
}

bool Regex::separates(char32_t a, char32_t b) const {
  const AtomSet before = atoms_of(a), after = atoms_of(b);
  for (std::size_t i = 0; i < atoms_.size(); ++i)
    if (before[i] && (pattern_.follow[i] & after).any()) return false;
  return true;
}

}    // namespace sheaf
