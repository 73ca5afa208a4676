#include "engine/settings.h"

#include <tuple>

#include "base/error.h"
#include "base/text.h"
#include "engine/key_lines.h"

namespace sheaf {
namespace {

bool is_auto(const Json& value) { return value.is_string() && value.get<std::string>() == "auto"; }
bool within(const std::string& path, const std::string& section) { return path == section || path.starts_with(section + "."); }
std::string leaf(const std::string& path) { return path.substr(path.rfind('.') + 1); }
std::string parent(const std::string& path) {
  const std::size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

std::string inside(const std::string& section, const std::string& name) {
  return section.empty() ? name : fmt::format("{}.{}", section, name);
}

Json* child(Json& object, const std::string& name) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(name);
  return it == object.end() ? nullptr : &*it;
}

Json* descend(Json& root, const std::string& path) {
  Json* node = &root;
  for (const std::string& name : split(path, '.'))
    if (node = child(*node, name); !node) return nullptr;
  return node;
}

std::string canonical(std::string path) {
  for (const auto& [alias, name] : key_aliases())
    if (within(path, alias)) path.replace(0, alias.size(), name);
  return path;
}

std::string found(const Json& value) {
  const bool plain = value.is_null() || value.is_boolean();
  return plain ? shown(value) : fmt::format("{} ({})", shown(value), json_type(value));
}

}    // namespace

Settings::Settings(const std::string& text, std::string file) : root_(parse_json(text, file)), file_(std::move(file)) {
  if (!root_.is_object())
    user_error("{}: found {}, wanted an object: {{\"model\": ..., \"data\": ..., \"run\": ...}}", file_, json_type(root_));
  lines_ = key_lines(text);
  rename_aliases();
}

// So that the rest knows one spelling only.
void Settings::rename_aliases() {
  for (const auto& [alias, name] : key_aliases()) {
    Json* section = descend(root_, parent(alias));
    Json* value = section ? child(*section, leaf(alias)) : nullptr;
    if (!value) continue;
    if (child(*section, leaf(name))) user_error("{}: the same as {}, which is given too: keep one", at(alias), quote(name));
    for (const auto& [path, line] : std::map(lines_))
      if (within(path, alias)) lines_[name + path.substr(alias.size())] = line;
    (*section)[leaf(name)] = Json(*value);
    section->erase(leaf(alias));
  }
}

void Settings::put(const std::string& raw_path, Json value, const std::string& origin) {
  try {
    std::ignore = value.dump();
  } catch (const Json::exception&) {    // run.json could not hold it
    user_error("{}: the value of {} is not UTF-8: {}", origin, quote(raw_path), shown(value));
  }
  const std::string path = canonical(raw_path);
  Json* node = &root_;
  std::string done;
  for (const std::string& name : split(path, '.')) {
    if (name.empty()) user_error("{}: {} is not a key path", origin, quote(raw_path));
    if (is_auto(*node) || node->is_null()) *node = Json::object();
    if (!node->is_object())
      user_error("{}: cannot set {}: {} is {} ({})", origin, quote(raw_path), quote(done), json_type(*node), shown(*node));
    node = &(*node)[name];
    done = inside(done, name);
  }
  *node = std::move(value);
  origins_.emplace_back(path, origin);
  rename_aliases();
}

void Settings::override_with(const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0)
    user_error("command line: {} is no override; wanted key.path=value, such as run.steps=100", quote(assignment));
  const std::string path = assignment.substr(0, equals), text = assignment.substr(equals + 1);
  Json value = Json::parse(text, nullptr, false);
  // A folder may be called 2026: where only a text is wanted, a number is its digits.
  const Key* key = find_key(canonical(path));
  const bool wants_text = key && (key->kind == KeyKind::text || key->kind == KeyKind::source || key->kind == KeyKind::corpus);
  if (value.is_discarded() || (wants_text && (value.is_number() || value.is_boolean()))) value = text;
  put(path, std::move(value), "command line");
}

std::string Settings::place(const std::string& path) const {
  for (auto it = origins_.rbegin(); it != origins_.rend(); ++it)
    if (within(path, it->first)) return it->second;
  if (const auto line = lines_.find(path); line != lines_.end()) return fmt::format("{}:{}", file_, line->second);
  for (const auto& [deeper, origin] : origins_)
    if (within(deeper, path)) return origin;
  return file_;
}

std::string Settings::at(const std::string& path) const { return fmt::format("{}: {}", place(path), path); }

bool Settings::given(const std::string& path) const { return values_.contains(path); }

const Key& Settings::key(const std::string& path) const {
  const Key* found = find_key(table_path(path, scheduler_));
  SHEAF_CHECK(found, "{} is not in config_table.inc", path);
  return *found;
}

const Json& Settings::get(const std::string& path) const {
  if (const auto it = values_.find(path); it != values_.end()) return it->second;
  const Key& row = key(path);
  if (row.required) user_error("{}: {} is missing: {}; wanted {}\n  on the command line: {}=...", file_, path, row.doc, row.wanted(), path);
  return row.preset;
}

void Settings::unknown(const std::string& section, const std::string& name) const {
  const std::string path = inside(section, name);
  if (!scheduler_.empty() && section == "scheduler.params") {
    const std::vector<std::string> known = keys_inside(table_path(section, scheduler_));
    user_error("{}: {} has no such parameter{}\n  it takes: {}", at(path), scheduler_, did_you_mean(name, known), join(known, ", "));
  }
  const std::string where = section.empty() ? "" : fmt::format(" in section {}", quote(section));
  std::vector<std::string> siblings = keys_inside(section);
  if (section == "scheduler") siblings.emplace_back("params");
  std::string near = did_you_mean(name, siblings);
  if (near.empty()) {    // perhaps it stands in the wrong section
    std::vector<std::string> leaves;
    for (const Key& key : config_keys()) leaves.push_back(leaf(key.path));
    const std::string best = nearest(name, leaves);
    for (const Key& key : config_keys())
      if (near.empty() && !best.empty() && leaf(key.path) == best) near = fmt::format("; did you mean {}?", quote(key.path));
  }
  const std::string known = near.empty() && !section.empty() ? fmt::format("\n  known: {}", join(siblings, ", ")) : "";
  user_error("{}: unknown key{}{}{}", at(path), where, near, known);
}

void Settings::find_scheduler() {
  Json* section = child(root_, "scheduler");
  if (!section || !section->is_object()) return;
  const Json* type = child(*section, "type");
  if (type && !is_auto(*type)) {
    const std::optional<Json> accepted = find_key("scheduler.type")->accept(*type);
    if (!accepted) user_error("{}: found {}, wanted {}", at("scheduler.type"), found(*type), find_key("scheduler.type")->wanted());
    if (accepted->is_string()) scheduler_ = accepted->get<std::string>();
  }
  const Json* params = child(*section, "params");
  if (scheduler_.empty() && params && params->is_object() && !params->empty())
    user_error("{}: parameters, but no scheduler.type; wanted {}", at("scheduler.params"), find_key("scheduler.type")->wanted());
}

void Settings::take(const std::string& path, const Json& value) {
  const std::optional<Json> accepted = key(path).accept(value);
  if (!accepted) user_error("{}: found {}, wanted {}", at(path), found(value), key(path).wanted());
  values_[path] = *accepted;
  if (key(path).status == KeyStatus::idle) idle_.push_back(path);
}

void Settings::walk(const Json& object, const std::string& section) {
  const Key* outer = find_key(table_path(section, scheduler_));
  for (const auto& [name, value] : object.items()) {
    if (is_auto(value)) continue;
    const std::string path = inside(section, name), in_table = table_path(path, scheduler_);
    const Key* key = find_key(in_table);
    const bool open = outer && outer->kind == KeyKind::open;
    if (!open && name.find_first_of(".[") != std::string::npos) unknown(section, name);    // a path is no name in a file
    const bool inner = is_section(in_table) || (path == "scheduler.params" && scheduler_.empty());
    if (inner && (value.is_object() || value.is_null())) {
      if (value.is_object()) walk(value, path);
    } else if (key) {
      if (key->kind == KeyKind::open && value.is_null()) continue;
      take(path, value);
    } else if (inner) {
      user_error("{}: found {}, wanted an object", at(path), found(value));
    } else if (open) {
      idle_.push_back(path);
    } else {
      unknown(section, name);
    }
  }
}

// In a section with a switch that is off nothing else counts. The switch of an idle feature switches nothing.
bool Settings::section_off(const std::string& path) const {
  for (std::string section = parent(path); !section.empty(); section = parent(section)) {
    const std::string name = section + ".enabled";
    const Key* key = find_key(name);
    if (key && key->status != KeyStatus::idle && name != path && !get(name).get<bool>()) return true;
  }
  return false;
}

void Settings::check_precision() const {
  if (get("bf16.enabled").get<bool>() && get("fp16.enabled").get<bool>())
    user_error("{} and bf16.enabled are both true; wanted one of them", at("fp16.enabled"));
}

void Settings::check_refused() {
  for (const auto& [path, value] : values_) {
    const Key& row = key(path);
    if (row.status == KeyStatus::idle) continue;
    if (section_off(path)) {
      idle_.push_back(path);
    } else if (row.refuses(value)) {
      std::vector<std::string> accepted;
      for (const Json& one : row.only) accepted.push_back(shown(one));
      user_error("{}: found {}: not built yet: {}\n  accepted: {}", at(path), found(value), row.doc, join(accepted, ", "));
    }
  }
}

void Settings::check() {
  values_.clear();
  idle_.clear();
  scheduler_.clear();
  find_scheduler();
  walk(root_, "");
  check_precision();
  check_refused();
}

}    // namespace sheaf
