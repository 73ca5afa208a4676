#pragma once
// JSON files as users write them: // and /* */ comments are allowed, duplicate keys are not, and errors name file, line and column.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace sheaf {

using Json = nlohmann::ordered_json;    // keeps the order of keys, and so finds a key by looking at each
using LargeJson = nlohmann::json;       // for objects of many keys: a vocabulary

// Throws UserError: "run.json:12:5: ..." for broken JSON, a repeated key, a missing or unreadable file.
Json read_json(const std::string& path);
Json parse_json(const std::string& text, const std::string& where);    // `where` is named in errors
LargeJson parse_large_json(const std::string& text, const std::string& where);
// A list of integers. Throws UserError: `where` has something else. (get<> would take 1e30 for an integer.)
std::vector<std::int64_t> integers(const Json& list, const std::string& where);
std::string json_type(const Json& value);    // "a string", "an integer", ...
std::string json_type(const LargeJson& value);

std::string read_file(const std::string& path);                                  // throws UserError
void write_file_atomically(const std::string& path, const std::string& text);    // temporary name, fsync, rename; throws UserError

}    // namespace sheaf
