#include "data/tokenizer/pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "data/tokenizer/utf8.h"

namespace sheaf {

namespace {

constexpr int kMaxDepth = 64;       // of groups
constexpr int kMaxRepeat = 1000;    // PCRE2 copies what is repeated

struct Addition {
  std::string_view category;
  char32_t first, last;
};
constexpr Addition kAdditions[] = {
#define X(category, first, last) {#category, first, last},
#include "data/tokenizer/unicode_additions.inc"
#undef X
};
constexpr std::string_view kCategories = " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp ";

// White_Space of Unicode. PCRE2's \s has U+180E too.
constexpr std::array<std::array<char32_t, 2>, 10> kSpaces{{{0x9, 0xD},
                                                           {0x20, 0x20},
                                                           {0x85, 0x85},
                                                           {0xA0, 0xA0},
                                                           {0x1680, 0x1680},
                                                           {0x2000, 0x200A},
                                                           {0x2028, 0x2029},
                                                           {0x202F, 0x202F},
                                                           {0x205F, 0x205F},
                                                           {0x3000, 0x3000}}};

std::string hex(char32_t code) { return fmt::format("\\x{{{:x}}}", static_cast<std::uint32_t>(code)); }
std::string range(char32_t first, char32_t last) { return first == last ? hex(first) : hex(first) + "-" + hex(last); }

// What follows stands between the brackets of a class.
std::string spaces() {
  std::string out;
  for (const auto& [first, last] : kSpaces) out += range(first, last);
  return out;
}
std::string not_spaces() {
  std::string out;
  char32_t next = 0;
  for (const auto& [first, last] : kSpaces) {
    out += range(next, first - 1);
    next = last + 1;
  }
  return out + range(next, 0x10FFFF);
}
std::string category(std::string_view name) {
  std::string out = fmt::format("\\p{{{}}}", name);
  for (const Addition& a : kAdditions)
    if (a.category.starts_with(name)) out += range(a.first, a.last);
  return out;
}
// Oniguruma's \w: letters, marks, decimal digits, letter numbers, connectors, the other numbers of Latin-1, and the circled letters.
std::string word() {
  return category("L") + category("M") + category("Nd") + category("Nl") + category("Pc") + "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" +
         range(0x24B6, 0x24E9) + range(0x1F130, 0x1F149) + range(0x1F150, 0x1F169) + range(0x1F170, 0x1F189);
}

// A piece of the pattern: its translation, and what Glushkov's construction needs.
struct Part {
  std::string text;
  AtomSet first, last;
  bool nullable = true;
  bool is_quantified = false;
};

class Translator {
 public:
  Translator(std::string_view in, std::string where) : in_(in), where_(std::move(where)) {}

  Pattern run() {
    if (valid_utf8_prefix(in_) != in_.size()) fail("it is not UTF-8");
    Part all = alternatives(0);
    if (at_ < in_.size()) fail("a ')' without its '('");
    out_.pcre2 = std::move(all.text);
    if (all.nullable) out_.local = false;
    return std::move(out_);
  }
  Pattern literal() {
    Part all;
    while (at_ < in_.size()) all = joined(std::move(all), atom(hex(take_char())));
    out_.pcre2 = std::move(all.text);
    if (all.nullable) out_.local = false;
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    std::string shown(in_.substr(0, 200));
    user_error("{}: {}, at byte {} of the pattern {}", where_, what, at_, quote(shown));
  }
  [[noreturn]] void unsupported(const std::string& what) const { fail(what + " is not supported"); }

  bool take(std::string_view text) {
    if (!in_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  char32_t take_char() {
    const Utf8Char c = utf8_at(in_, at_);
    at_ += c.size;
    return c.code;
  }
  char peek() const { return at_ < in_.size() ? in_[at_] : '\0'; }

  Part atom(const std::string& text) {
    if (out_.atoms.size() == kMaxPatternAtoms) fail(fmt::format("more than {} characters and classes: too long", kMaxPatternAtoms));
    Part part{.text = text, .nullable = false};
    part.first.set(out_.atoms.size());
    part.last = part.first;
    out_.atoms.push_back(fold_ ? "(?i:" + text + ")" : text);
    out_.follow.emplace_back();
    return part;
  }
  void connect(const AtomSet& last, const AtomSet& first) {
    for (std::size_t i = 0; i < out_.atoms.size(); ++i)
      if (last[i]) out_.follow[i] |= first;
  }
  Part joined(Part a, Part b) {
    connect(a.last, b.first);
    a.text += b.text;
    if (a.nullable) a.first |= b.first;
    a.last = b.nullable ? a.last | b.last : b.last;
    a.nullable = a.nullable && b.nullable;
    return a;
  }

  Part alternatives(int depth) {
    if (depth > kMaxDepth) fail("groups nested too deep");
    Part all = sequence(depth);
    while (take("|")) {
      const Part next = sequence(depth);
      all.text += "|" + next.text;
      all.first |= next.first;
      all.last |= next.last;
      all.nullable = all.nullable || next.nullable;
    }
    return all;
  }
  Part sequence(int depth) {
    Part all;
    while (at_ < in_.size() && peek() != '|' && peek() != ')') all = joined(std::move(all), quantified(primary(depth)));
    return all;
  }

  Part quantified(Part part) {
    int min = 1, max = 1;    // -1: no end
    bool interval = false;
    if (take("*")) {
      min = 0, max = -1;
    } else if (take("+")) {
      max = -1;
    } else if (take("?")) {
      min = 0;
    } else if (peek() == '{') {
      interval = true;
      take_interval(min, max);
    } else {
      return part;
    }
    if (part.text.empty() || part.is_quantified) fail("a quantifier after nothing that can be repeated");
    const std::string count = max < 0 ? fmt::format("{{{},}}", min) : fmt::format("{{{},{}}}", min, max);
    part.text += count;
    if (max != 1) connect(part.last, part.first);
    part.nullable = part.nullable || min == 0;
    if (peek() == '?') {
      if (interval && min == max) unsupported("'{n}?'");
      part.text += take("?") ? "?" : "";
    } else if (interval && take("+")) {    // in Ruby's syntax: the whole, once or more; only ?, * and + can be possessive
      part.text = "(?:" + part.text + ")+";
      connect(part.last, part.first);
    } else if (take("+")) {
      part.text += "+";
    }
    if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') unsupported("a quantifier of a quantifier");
    part.is_quantified = true;
    return part;
  }
  void take_interval(int& min, int& max) {
    ++at_;
    const auto number = [&] {
      int value = 0;
      const std::size_t begin = at_;
      for (; peek() >= '0' && peek() <= '9'; ++at_) value = std::min(value * 10 + (peek() - '0'), kMaxRepeat + 1);
      if (at_ == begin) unsupported("'{' that does not begin {n}, {n,} or {n,m}");
      if (value > kMaxRepeat) fail(fmt::format("more than {} repetitions", kMaxRepeat));
      return value;
    };
    min = max = number();
    if (take(",")) max = peek() == '}' ? -1 : number();
    if (!take("}")) unsupported("'{' that does not begin {n}, {n,} or {n,m}");
    if (max >= 0 && max < min) fail("a quantifier {n,m} with n > m");
  }

  Part primary(int depth) {
    switch (peek()) {
      case '(':
        return group(depth);
      case '[':
        return char_class();
      case '.':
        ++at_;
        return atom("[^\\x{a}]");
      case '^':
        ++at_;
        out_.local = false;
        return {.text = "(?m:^)"};
      case '$':    // the end of a line, and so one character of lookahead
        ++at_;
        if (looking_) out_.local = false;
        return {.text = "(?m:$)"};
      case '*':
      case '+':
      case '?':
        fail("a quantifier after nothing that can be repeated");
      case '\\': {
        bool negated;
        if (const std::string set = escaped_set(negated); !set.empty()) return atom((negated ? "[^" : "[") + set + "]");
        return atom(hex(escaped_char()));
      }
      default:
        return atom(hex(take_char()));
    }
  }

  Part group(int depth) {
    ++at_;
    const bool fold = fold_;
    std::string open = "(?:";
    bool looks = false;
    if (take("?")) {
      if (take("i:")) {
        fold_ = true;
        open = "(?i:";
      } else if (take("=") || take("!")) {
        looks = true;
        open = std::string("(?") + in_[at_ - 1];
      } else if (take("<=") || take("<!")) {
        looks = true;
        open = std::string("(?<") + in_[at_ - 1];
        out_.local = false;
      } else if (!take(":")) {
        unsupported("a group that begins (?" + std::string(in_.substr(at_, valid_utf8_prefix(in_.substr(at_, 1)))));
      }
    }
    if (looks && looking_) out_.local = false;
    const bool looking = std::exchange(looking_, looks || looking_);
    Part part = alternatives(depth + 1);
    looking_ = looking;
    if (!take(")")) fail("a '(' without its ')'");
    fold_ = fold;
    part.text = open + part.text + ")";
    part.is_quantified = looks;    // a lookahead is not repeated
    if (looks) {
      // It takes no character. It is one of one character if no atom of it follows another.
      for (std::size_t i = 0; i < out_.atoms.size(); ++i)
        if (part.first[i] && (out_.follow[i].any() || !part.last[i])) out_.local = false;
      if ((part.last & ~part.first).any()) out_.local = false;
      part.first.reset(), part.last.reset();
      part.nullable = true;
    }
    return part;
  }

  // \s \S \d \D \w \W \p{..} \P{..}: what stands between the brackets of a class; empty: not one of them, nothing is taken.
  std::string escaped_set(bool& negated) {
    const char kind = at_ + 1 < in_.size() ? in_[at_ + 1] : '\0';
    negated = kind == 'D' || kind == 'W' || kind == 'P';
    if (std::string_view("sSdDwWpP").find(kind) == std::string_view::npos || kind == '\0') return "";
    at_ += 2;
    if (kind == 's') return spaces();
    if (kind == 'S') return not_spaces();
    if (kind == 'd' || kind == 'D') return category("Nd");
    if (kind == 'w' || kind == 'W') return word();
    const std::size_t end = in_.find('}', at_);
    if (peek() != '{' || end == std::string_view::npos) unsupported("\\p without {name}");
    const std::string_view name = in_.substr(at_ + 1, end - at_ - 1);
    if (name.empty() || name.size() > 2 || kCategories.find(fmt::format(" {} ", name)) == std::string_view::npos)
      unsupported(fmt::format("the property {}", quote(name.substr(0, 30))));
    if (fold_ && (name == "Lu" || name == "Ll" || name == "Lt")) unsupported(fmt::format("\\p{{{}}} without regard to case", name));
    at_ = end + 1;
    return category(name);
  }
  char32_t escaped_char() {
    ++at_;
    if (at_ >= in_.size()) fail("a '\\' at the end");
    const char32_t c = take_char();
    const bool is_name = c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (!is_name) return c;
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case 'x':
        if (take("{")) {
          const char32_t code = take_hex(1, 8);
          if (!take("}")) unsupported("\\x{ without one number and }");
          return code;
        }
        return take_hex(2, 2);
      case 'u':
        return take_hex(4, 4);
      default:
        at_ -= utf8_at(in_, last_utf8_char(in_.substr(0, at_))).size;
        unsupported("'\\" + std::string(in_.substr(at_, utf8_at(in_, at_).size)) + "'");
    }
  }
  char32_t take_hex(int at_least, int at_most) {
    char32_t code = 0;
    int digits = 0;
    for (; digits < at_most && std::isxdigit(static_cast<unsigned char>(peek())); ++digits, ++at_)
      code = std::min<char32_t>(code * 16 + static_cast<char32_t>(std::stoi(std::string(1, peek()), nullptr, 16)), 0x110000);
    if (digits < at_least || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000) || (at_most == 2 && code > 0x7F))
      unsupported("a number after \\x or \\u that is no character");
    return code;
  }

  Part char_class() {
    ++at_;
    std::string text = take("^") ? "[^" : "[";
    bool empty = true;
    while (peek() != ']' || empty) {
      if (at_ >= in_.size()) fail("a '[' without its ']'");
      if (peek() == ']') unsupported("']' as the first of a class");
      if (peek() == '[') unsupported("'[' inside a class, without '\\',");
      if (in_.substr(at_).starts_with("&&")) unsupported("'&&' inside a class");
      empty = false;
      bool negated = false;
      if (const std::string set = peek() == '\\' ? escaped_set(negated) : ""; !set.empty()) {
        if (negated) unsupported("\\D, \\W or \\P inside a class");
        if (peek() == '-' && at_ + 1 < in_.size() && in_[at_ + 1] != ']') unsupported("'-' after a set inside a class");
        text += set;
        continue;
      }
      const char32_t first = peek() == '\\' ? escaped_char() : take_char();
      if (peek() == '-' && at_ + 1 < in_.size() && in_[at_ + 1] != ']') {
        ++at_;
        if (peek() == '[') unsupported("a range that ends with '['");
        if (bool ignored; peek() == '\\' && !escaped_set(ignored).empty()) unsupported("a range that ends with a set");
        const char32_t last = peek() == '\\' ? escaped_char() : take_char();
        if (last < first) fail("a range whose end comes before its begin");
        text += range(first, last);
      } else {
        text += hex(first);
      }
    }
    ++at_;
    return atom(text + "]");
  }

  std::string_view in_;
  std::string where_;
  std::size_t at_ = 0;
  bool fold_ = false;       // inside (?i: )
  bool looking_ = false;    // inside a lookahead or lookbehind
  Pattern out_;
};

}    // namespace

Pattern translate_pattern(std::string_view oniguruma, const std::string& where) { return Translator(oniguruma, where).run(); }
Pattern literal_pattern(std::string_view text, const std::string& where) { return Translator(text, where).literal(); }

}    // namespace sheaf
