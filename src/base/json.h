#pragma once
// JSON files as users write them: // and /* */ comments are allowed, duplicate keys are not, and errors name file, line and column.
#include <nlohmann/json.hpp>
#include <string>

namespace sheaf {

using Json = nlohmann::ordered_json;

// Throws UserError: "run.json:12:5: ..." for broken JSON, a repeated key, a missing or unreadable file.
Json read_json(const std::string& path);
Json parse_json(const std::string& text, const std::string& where);    // `where` is named in errors
std::string json_type(const Json& value);                              // "a string", "an integer", ...

std::string read_file(const std::string& path);                                  // throws UserError
void write_file_atomically(const std::string& path, const std::string& text);    // temporary name, fsync, rename; throws UserError

}    // namespace sheaf
