#pragma once
// What the user set: the file, overrides laid over it. After check() every key is known, of its type and not refused.
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/config_keys.h"

namespace sheaf {

class Settings {
 public:
  // `file` is named in errors. Throws UserError, as everything here.
  Settings(const std::string& text, std::string file);

  // `origin` is named in errors instead of the file: "--model".
  void put(const std::string& path, Json value, const std::string& origin);
  void override_with(const std::string& assignment);    // "key.path=value": JSON if it parses as JSON, else text
  void check();

  // Paths are the table's, but without "[T]": scheduler.type decides.
  bool given(const std::string& path) const;
  const Key& key(const std::string& path) const;
  const Json& get(const std::string& path) const;    // or its default; UserError if the key is required and absent
  std::string at(const std::string& path) const;     // "run.json:7: run.steps"
  const std::string& file() const { return file_; }
  const std::vector<std::string>& idle() const { return idle_; }    // given, and of no meaning in this run

 private:
  void rename_aliases();
  void find_scheduler();
  void walk(const Json& object, const std::string& path);
  void take(const std::string& path, const Json& value);
  void check_precision() const;
  void check_refused();
  bool section_off(const std::string& path) const;
  std::string place(const std::string& path) const;
  [[noreturn]] void unknown(const std::string& section, const std::string& name) const;

  Json root_;
  std::string file_;
  std::map<std::string, int> lines_;
  std::vector<std::pair<std::string, std::string>> origins_;    // path, origin; the last one holds
  std::string scheduler_;                                       // scheduler.type, "" if there is none
  std::map<std::string, Json> values_;                          // by path, in accepted form
  std::vector<std::string> idle_;
};

}    // namespace sheaf
