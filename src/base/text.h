#pragma once
// Small text helpers shared by errors, tables and the IR: quoting, joining, nearest names, units.
#include <fmt/format.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sheaf {

std::string quote(std::string_view text);    // 'text'
std::string join(const std::vector<std::string>& parts, std::string_view separator);
std::vector<std::string> split(std::string_view text, char separator);    // "a,b" -> {a, b}; "" -> {}
std::string_view trimmed(std::string_view text);

// The candidate with the smallest edit distance; "" when none is within a third of the name's length.
std::string nearest(std::string_view name, const std::vector<std::string>& candidates);
// "; did you mean 'x'?" or "".
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);

std::string human_bytes(double bytes);     // 1536 -> "1.5 KiB"
std::string human_count(double count);     // 2400000 -> "2.4M"
std::string human_time(double seconds);    // 75 -> "1m15s"
std::string shortest(double value);        // shortest text that parses back to the same double; always with '.' or 'e'

// Columns padded to their widest cell; the first row is the header.
std::string table(const std::vector<std::vector<std::string>>& rows);

// 64-bit FNV-1a: names to keys of random streams. Stable for ever: initial weights depend on it.
std::uint64_t hash_text(std::string_view text);

}    // namespace sheaf
