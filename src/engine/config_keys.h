#pragma once
// The table of all keys of a run configuration (config_table.inc) and what follows from it alone: types, what was wanted, documentation.
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace sheaf {

enum class KeyStatus { used, idle, refused };
enum class KeyKind { integer, number, boolean, text, list, object, open, pair, source, corpus, choice };

struct Key {
  std::string path;    // as in the table: "scheduler[OneCycle].params.cycle_min_lr"
  KeyKind kind;
  bool nullable;
  std::vector<std::string> choices;    // kind choice
  std::vector<std::string> bounds;     // of numbers: ">=0", "<1"
  bool required;
  Json preset;    // the default; null where required
  KeyStatus status;
  std::vector<Json> only;    // status refused: the values that are not
  std::string doc;           // status refused: what is not built

  // The value in the form that the rest of Sheaf sees (5e8 as an integer, choices in the table's spelling); nothing if the type is wrong.
  std::optional<Json> accept(const Json& value) const;
  bool refuses(const Json& accepted) const;
  std::string wanted() const;    // "an integer >= 1 or null"
};

const std::vector<Key>& config_keys();
const Key* find_key(std::string_view path);
// "scheduler.params.x" -> "scheduler[T].params.x"; other paths, and an empty type, change nothing.
std::string table_path(const std::string& path, const std::string& scheduler_type);
bool is_section(std::string_view path);                                   // some key lies inside
std::vector<std::string> keys_inside(std::string_view section);           // their names, one level down; "" is the top level
const std::vector<std::pair<std::string, std::string>>& key_aliases();    // other spelling, spelling of the table

// docs/config.md
std::string config_markdown();

// JSON for messages, at most about 60 characters.
std::string shown(const Json& value);

}    // namespace sheaf
