#include "data/tokenizer/utf8.h"

#include <cstring>

namespace sheaf {

namespace {

// Bytes of the longest start of a well-formed character at `at`; `whole`: it is one. At least 1 (Unicode 16, table 3-7).
std::size_t well_formed(std::string_view text, std::size_t at, bool& whole) {
  const auto lead = static_cast<unsigned char>(text[at]);
  whole = lead < 0x80;
  if (whole || lead < 0xC2 || lead > 0xF4) return 1;
  const std::size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned char low = 0x80, high = 0xBF;    // of the second byte: no overlong forms, no surrogates, nothing above U+10FFFF
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (std::size_t i = 1; i < size; ++i) {
    if (at + i >= text.size()) return i;
    const auto byte = static_cast<unsigned char>(text[at + i]);
    if (byte < low || byte > high) return i;
    low = 0x80, high = 0xBF;
  }
  whole = true;
  return size;
}

}    // namespace

void append_utf8(char32_t code, std::string& out) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6), put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F)), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
  }
}

std::size_t valid_utf8_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t eight;
    if (at + 8 <= text.size() && (std::memcpy(&eight, text.data() + at, 8), (eight & 0x8080808080808080u) == 0)) {
      at += 8;
      continue;
    }
    bool whole;
    const std::size_t size = well_formed(text, at, whole);
    if (!whole) return at;
    at += size;
  }
  return at;
}

std::string repaired_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 16);
  while (!text.empty()) {
    const std::size_t good = valid_utf8_prefix(text);
    out += text.substr(0, good);
    text.remove_prefix(good);
    if (text.empty()) break;
    bool whole;
    text.remove_prefix(well_formed(text, 0, whole));
    append_utf8(0xFFFD, out);
  }
  return out;
}

}    // namespace sheaf
