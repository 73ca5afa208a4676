#pragma once
// UTF-8: reading, writing, and what to do where it is broken.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sheaf {

struct Utf8Char {
  char32_t code;
  std::size_t size;    // in bytes
};

// The character at `at` of valid UTF-8.
inline Utf8Char utf8_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + i])); };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

// Where the last character of valid UTF-8 begins; the text is not empty.
inline std::size_t last_utf8_char(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

inline bool continues_utf8_char(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

void append_utf8(char32_t code, std::string& out);    // a Unicode scalar value

// Bytes from the start that are valid; the size of the text if all are.
std::size_t valid_utf8_prefix(std::string_view text);

// Each maximal invalid subsequence (Unicode 16, section 3.9, "maximal subparts") becomes U+FFFD, as Python's errors="replace" does.
std::string repaired_utf8(std::string_view text);

}    // namespace sheaf
