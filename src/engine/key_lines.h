#pragma once
// Where keys stand in a JSON text, for errors: nlohmann keeps no positions.
#include <map>
#include <string>
#include <string_view>

namespace sheaf {

// Dotted path of every key -> its line, from 1. The text must have parsed; keys of objects inside lists are left out.
std::map<std::string, int> key_lines(std::string_view text);

}    // namespace sheaf
