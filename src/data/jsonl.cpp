#include "data/jsonl.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

constexpr int kDeepest = 100;    // what reads messages later goes down by recursion

bool deeper_than(const Json& value, int levels) {
  if (!value.is_structured()) return false;
  return levels == 0 || std::any_of(value.begin(), value.end(), [&](const Json& item) { return deeper_than(item, levels - 1); });
}

Json parse_line(std::string_view line, const std::string& where) {
  try {
    return Json::parse(line);
  } catch (const Json::parse_error& error) {
    std::string what = error.what();    // "[json.exception.parse_error.101] parse error at line 1, column 2: what is meant"
    if (const std::size_t colon = what.find(": "); colon != std::string::npos) what = what.substr(colon + 2);
    user_error("{}:{}: not JSON: {}", where, error.byte, what.substr(0, 200));
  } catch (const Json::exception& error) {
    user_error("{}: not JSON: {}", where, error.what());    // a number out of range
  }
}

std::string keys_of(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(quote(key));
  if (keys.size() > 8) keys.resize(8);
  return keys.empty() ? "none" : join(keys, ", ");
}

std::string field_of(const Json& object, const std::string& wanted, const std::string& where) {
  if (!wanted.empty()) {
    if (!object.contains(wanted)) user_error("{}: has no field {}; it has {}", where, quote(wanted), keys_of(object));
    return wanted;
  }
  const bool text = object.contains("text"), messages = object.contains("messages");
  if (text && messages) user_error("{}: has both fields 'text' and 'messages'; say which: --field, or data.field in a run", where);
  if (!text && !messages)
    user_error("{}: has no field 'text' and no field 'messages'; it has {}; --field, or data.field in a run, names another", where,
               keys_of(object));
  return text ? "text" : "messages";
}

}    // namespace

JsonlDocument parse_jsonl_line(std::string_view line, const std::string& field, const std::string& where) {
  Json object = parse_line(line, where);
  if (!object.is_object())
    user_error("{}: is {}, an object with the text in {} was wanted", where, json_type(object), quote(field.empty() ? "text" : field));
  const std::string name = field_of(object, field, where);
  Json& value = object[name];
  JsonlDocument document;
  if (value.is_string()) {
    document.text = std::move(value.get_ref<std::string&>());
    return document;
  }
  if (!value.is_array()) user_error("{}: field {} is {}, a string or a list of messages was wanted", where, quote(name), json_type(value));
  if (deeper_than(object, kDeepest)) user_error("{}: is nested more than {} levels deep", where, kDeepest);
  document.messages = std::move(value);
  if (const auto tools = object.find("tools"); tools != object.end()) document.tools = std::move(*tools);
  return document;
}

}    // namespace sheaf
