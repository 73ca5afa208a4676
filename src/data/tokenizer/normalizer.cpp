#include "data/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "data/tokenizer/utf8.h"

namespace sheaf {

namespace {

constexpr int kMaxDepth = 16;    // of Sequence in Sequence

enum Stability : std::uint8_t {
  kStartsCluster = 1,    // a starter that never composes with what is before: normalisation may be cut before it
  kCanonical = 2,        // and NFC gives back: text of such characters is in NFC
  kCompatible = 4,       // the same for NFKC
  kDecomposed = 8,       // NFD gives it back and it is a starter
  kFullyDecomposed = 16,
  kInert = 32,    // newer than the library's tables: no other character has to do with it
};

constexpr char32_t kLater[][2] = {
#define X(first, last) {first, last},
#include "data/tokenizer/unicode_later.inc"
#undef X
};

utf8proc_option_t options_of(bool compose, bool compatible) {
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                        (compatible ? UTF8PROC_COMPAT : 0));
}

// By code point, from utf8proc's own tables.
std::vector<std::uint8_t> make_stability() {
  constexpr utf8proc_int32_t kEnd = 0x110000;
  std::vector<std::uint8_t> table(kEnd, kStartsCluster | kCanonical | kCompatible | kDecomposed | kFullyDecomposed);
  const auto at = [&](utf8proc_int32_t c) -> std::uint8_t& { return table[static_cast<std::size_t>(c)]; };
  for (utf8proc_int32_t c = 0x80; c < kEnd; ++c) {
    const utf8proc_property_t* p = utf8proc_get_property(c);
    const bool is_hangul = c >= 0xAC00 && c < 0xD7A4;
    if (p->decomp_seqindex != UINT16_MAX || is_hangul) {
      utf8proc_int32_t out[32];
      int ignored = 0;
      const auto n = utf8proc_decompose_char(c, out, 32, options_of(false, false), &ignored);
      if (n != 1 || out[0] != c) at(c) &= static_cast<std::uint8_t>(~kDecomposed);
      if (p->decomp_type == 0 && !is_hangul) at(c) &= static_cast<std::uint8_t>(~kCanonical);    // pessimistic: é stays é, but look
      at(c) &= static_cast<std::uint8_t>(is_hangul ? ~kFullyDecomposed : ~(kCompatible | kFullyDecomposed));
      if (n == 2 && !is_hangul) at(out[1]) = 0;    // the second of a composition
      if (p->decomp_type == 0 && n > 0 && !is_hangul) {
        const std::uint8_t first = utf8proc_get_property(out[0])->combining_class == 0 ? 1 : 0;
        if (!first) at(c) = 0;
      }
    }
    if (p->combining_class != 0) at(c) = 0;
  }
  for (utf8proc_int32_t c = 0x1161; c <= 0x1175; ++c) at(c) = 0;    // Hangul vowels and finals compose with what is before
  for (utf8proc_int32_t c = 0x11A8; c <= 0x11C2; ++c) at(c) = 0;
  // NFC gives back most composed letters: try each.
  for (utf8proc_int32_t c = 0x80; c < kEnd; ++c) {
    const utf8proc_property_t* p = utf8proc_get_property(c);
    if (!(at(c) & kStartsCluster) || p->decomp_seqindex == UINT16_MAX || (c >= 0xD800 && c < 0xE000)) continue;
    std::string text;
    append_utf8(static_cast<char32_t>(c), text);
    for (const bool compatible : {false, true}) {
      utf8proc_uint8_t* made = nullptr;
      const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                                     &made, options_of(true, compatible));
      const bool same =
          size == static_cast<utf8proc_ssize_t>(text.size()) && std::equal(text.begin(), text.end(), reinterpret_cast<char*>(made));
      std::free(made);
      const std::uint8_t flag = compatible ? kCompatible : kCanonical;
      at(c) = static_cast<std::uint8_t>(same ? at(c) | flag : at(c) & ~flag);
    }
    // What it becomes must begin with a character that starts a cluster as well.
    utf8proc_int32_t out[32];
    int ignored = 0;
    if (utf8proc_decompose_char(c, out, 32, options_of(false, true), &ignored) > 0 && !(at(out[0]) & kStartsCluster))
      at(c) &= static_cast<std::uint8_t>(~kStartsCluster);
  }
  for (const auto& [first, last] : kLater)
    for (char32_t c = first; c <= last; ++c) table[c] = kStartsCluster | kCanonical | kCompatible | kDecomposed | kFullyDecomposed | kInert;
  return table;
}

const std::vector<std::uint8_t>& stability() {
  static const std::vector<std::uint8_t> table = make_stability();
  return table;
}

void append_form(std::string_view text, bool compose, bool compatible, std::string& out) {
  utf8proc_uint8_t* made = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &made,
                                 options_of(compose, compatible));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(made, std::free);
  SHEAF_CHECK(size >= 0, "utf8proc: {}", utf8proc_errmsg(size));
  out.append(reinterpret_cast<const char*>(made), static_cast<std::size_t>(size));
}

// Only the clusters around characters that may change are normalised: text is mostly in its form already. False: all of it is.
bool normalise(std::string_view text, bool compose, bool compatible, std::string& out) {
  const std::uint8_t stable = compose ? (compatible ? kCompatible : kCanonical) : (compatible ? kFullyDecomposed : kDecomposed);
  const auto& table = stability();
  std::size_t done = 0, cluster = 0;    // bytes in `out` already; where the cluster that we are in begins
  for (std::size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      cluster = at++;
      continue;
    }
    const Utf8Char c = utf8_at(text, at);
    const std::uint8_t flags = table[c.code];
    if (flags & kStartsCluster) cluster = flags & kInert ? at + c.size : at;
    if (flags & stable) {
      at += c.size;
      continue;
    }
    at += c.size;
    while (at < text.size()) {
      const Utf8Char next = utf8_at(text, at);
      if (table[next.code] & kStartsCluster) break;
      at += next.size;
    }
    out += text.substr(done, cluster - done);
    append_form(text.substr(cluster, at - cluster), compose, compatible, out);
    done = cluster = at;
  }
  if (done == 0) return false;
  out += text.substr(done);
  return true;
}

// Capitals that Unicode 16 and 17 added, after utf8proc 2.8: first, last, first of the small ones.
constexpr char32_t kNewCapitals[][3] = {
    {0x1C89, 0x1C89, 0x1C8A}, {0xA7CB, 0xA7CB, 0x264},  {0xA7CC, 0xA7CC, 0xA7CD}, {0xA7CE, 0xA7CE, 0xA7CF},    {0xA7D2, 0xA7D2, 0xA7D3},
    {0xA7D4, 0xA7D4, 0xA7D5}, {0xA7DA, 0xA7DA, 0xA7DB}, {0xA7DC, 0xA7DC, 0x19B},  {0x10D50, 0x10D65, 0x10D70}, {0x16EA0, 0x16EB8, 0x16EBB}};

void append_lower(char32_t c, std::string& out) {
  for (const auto& [first, last, small] : kNewCapitals)
    if (c >= first && c <= last) return append_utf8(small + (c - first), out);
  if (c == 0x130) {    // the only one that becomes two
    out += "i\xCC\x87";
    return;
  }
  append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
}

}    // namespace

bool is_white_space(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

void Normalizer::add(const JsonNode& node, int depth) {
  if (depth > kMaxDepth) node.fail("Sequence nested too deep");
  const std::string type = node.type();
  if (type == "Sequence") {
    node.check_keys({"type", "normalizers"});
    const JsonNode list = node.at("normalizers");
    for (std::size_t i = 0; i < list.size(); ++i) add(list.at(i), depth + 1);
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD" || type == "Lowercase") {
    node.check_keys({"type"});
    steps_.push_back({type == "NFC"    ? Kind::nfc
                      : type == "NFD"  ? Kind::nfd
                      : type == "NFKC" ? Kind::nfkc
                      : type == "NFKD" ? Kind::nfkd
                                       : Kind::lowercase});
  } else if (type == "Prepend") {
    node.check_keys({"type", "prepend"});
    steps_.push_back({Kind::prepend, "", node.at("prepend").text()});
  } else if (type == "Strip") {
    node.check_keys({"type", "strip_left", "strip_right"});
    steps_.push_back({Kind::strip, "", "", nullptr, node.at("strip_left").boolean(), node.at("strip_right").boolean()});
  } else if (type == "Replace") {
    node.check_keys({"type", "pattern", "content"});
    const JsonNode pattern = node.at("pattern");
    pattern.check_keys({"String", "Regex"});
    const std::string& content = node.at("content").text();
    if (const auto text = pattern.find("String")) {
      if (text->text().empty()) text->fail("is empty");
      steps_.push_back({Kind::replace_text, text->text(), content});
    } else {
      const JsonNode regex = pattern.at("Regex");
      if (content.find('$') != std::string::npos) node.at("content").fail("'$' with a Regex is not supported: {}", quote(content));
      steps_.push_back({Kind::replace_regex, regex.text(), content,
                        std::make_shared<const Regex>(translate_pattern(regex.text(), regex.where()), regex.where())});
    }
  } else {
    node.at("type").fail("{} is not supported; these are: Lowercase, NFC, NFD, NFKC, NFKD, Prepend, Replace, Sequence, Strip", quote(type));
  }
}

void Normalizer::add_metaspace(const std::string& replacement, bool prepend) {
  steps_.push_back({Kind::replace_text, " ", replacement});
  if (prepend) steps_.push_back({Kind::prepend_if_absent, "", replacement});
}
void Normalizer::add_prefix_space() { steps_.push_back({Kind::prepend_if_absent, "", " "}); }

// False: the text stays as it is, and `out` as it was.
bool Normalizer::apply(const Step& step, std::string_view text, bool is_start, std::string& out, bool* removed_start) const {
  switch (step.kind) {
    case Kind::nfc:
    case Kind::nfd:
    case Kind::nfkc:
    case Kind::nfkd:
      return normalise(text, step.kind == Kind::nfc || step.kind == Kind::nfkc, step.kind == Kind::nfkc || step.kind == Kind::nfkd, out);
    case Kind::prepend:
    case Kind::prepend_if_absent:
      if (!is_start || text.empty() || (step.kind == Kind::prepend_if_absent && text.starts_with(step.content))) return false;
      out += step.content;
      out += text;
      return true;
    case Kind::replace_text: {
      std::size_t done = 0;
      for (std::size_t at; (at = text.find(step.pattern, done)) != std::string_view::npos; done = at + step.pattern.size()) {
        out += text.substr(done, at - done);
        out += step.content;
      }
      if (done == 0) return false;
      out += text.substr(done);
      return true;
    }
    case Kind::replace_regex: {
      std::size_t done = 0;
      for (std::size_t from = 0; from <= text.size();) {
        const auto match = step.regex->find(text, from);
        if (!match) break;
        const bool again = match->begin == match->end && match->end == done && done > 0;    // an empty match right after a match
        if (!again) {
          out += text.substr(done, match->begin - done);
          out += step.content;
          done = match->end;
        }
        from = match->end;
        if (match->begin == match->end) from += match->end < text.size() ? utf8_at(text, match->end).size : 1;
      }
      out += text.substr(done);
      return true;
    }
    case Kind::strip: {
      std::string_view rest = text;
      while (step.left && !rest.empty() && is_white_space(utf8_at(rest, 0).code)) rest.remove_prefix(utf8_at(rest, 0).size);
      if (removed_start && rest.size() != text.size()) *removed_start = true;
      while (step.right && !rest.empty() && is_white_space(utf8_at(rest, last_utf8_char(rest)).code))
        rest.remove_suffix(rest.size() - last_utf8_char(rest));
      out += rest;
      return true;
    }
    case Kind::lowercase:
      for (std::size_t at = 0; at < text.size();) {
        const Utf8Char c = utf8_at(text, at);
        append_lower(c.code, out);
        at += c.size;
      }
      return true;
  }
  return false;
}

std::string_view Normalizer::run(std::string_view text, bool is_start, std::string& buffer, bool* removed_start) const {
  std::string made;
  for (const Step& step : steps_) {
    made.clear();
    if (!apply(step, text, is_start, made, removed_start)) continue;
    buffer.swap(made);
    text = buffer;
  }
  return text;
}

bool Normalizer::may_be_cut() const {
  return std::none_of(steps_.begin(), steps_.end(), [](const Step& s) { return s.kind == Kind::replace_regex || s.kind == Kind::strip; });
}

bool Normalizer::may_cut_before(char32_t c) const {
  const auto& table = stability();
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::nfc:
      case Kind::nfd:
      case Kind::nfkc:
      case Kind::nfkd:
        if (!(table[c] & kStartsCluster) || !(table[c] & kCompatible)) return false;
        break;
      case Kind::replace_text: {    // of one character, by one: of more, a match could lie across the cut
        const Utf8Char first = utf8_at(step.pattern, 0);
        if (first.size != step.pattern.size() || step.content.empty()) return false;
        if (first.code == c) c = utf8_at(step.content, 0).code;
        break;
      }
      case Kind::prepend:
      case Kind::prepend_if_absent:
        break;
      case Kind::lowercase: {
        std::string lower;
        append_lower(c, lower);
        c = utf8_at(lower, 0).code;
        break;
      }
      case Kind::replace_regex:
      case Kind::strip:
        return false;
    }
  }
  return true;
}

}    // namespace sheaf
