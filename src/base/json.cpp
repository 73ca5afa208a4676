#include "base/json.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {

std::string read_file(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) user_error("{}: no such file", path);
  if (std::filesystem::is_directory(path, ignored)) user_error("{}: is a folder, a file was wanted", path);
  std::ifstream in(path, std::ios::binary);
  if (!in) user_error("{}: cannot be read: {}", path, std::strerror(errno));
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file_atomically(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".tmp";
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) user_error("{}: cannot be written: {}", path, std::strerror(errno));
  std::size_t done = 0;
  bool good = true;
  while (good && done < text.size()) {
    const ssize_t n = ::write(file, text.data() + done, text.size() - done);
    if (n > 0) done += static_cast<std::size_t>(n);
    good = n > 0 || errno == EINTR;
  }
  good = good && ::fsync(file) == 0;
  const int error = errno;
  ::close(file);
  if (!good || ::rename(temporary.c_str(), path.c_str()) != 0) {
    const int shown = good ? errno : error;
    ::unlink(temporary.c_str());
    user_error("{}: cannot be written: {}", path, std::strerror(shown));
  }
}

// nlohmann keeps the last of two equal keys; a user who wrote both asked for something that one of them does not get.
template <class J>
static J parse_checked(const std::string& text, const std::string& where) {
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int, typename J::parse_event_t event, J& value) {
    if (event == J::parse_event_t::object_start) keys.emplace_back();
    if (event == J::parse_event_t::object_end) keys.pop_back();
    if (event == J::parse_event_t::key && !keys.back().insert(value.template get<std::string>()).second)
      user_error("{}: key {} is given twice", where, quote(value.template get<std::string>()));
    return true;
  };
  return J::parse(text, check, true, true);
}

template <class J>
static J parse_or_explain(const std::string& text, const std::string& where) {
  try {
    return parse_checked<J>(text, where);
  } catch (const typename J::parse_error& error) {
    const auto at = text.begin() + static_cast<std::ptrdiff_t>(std::min(error.byte ? error.byte - 1 : 0, text.size()));
    const auto line = std::count(text.begin(), at, '\n') + 1;
    const auto column = at - std::find(std::make_reverse_iterator(at), text.rend(), '\n').base() + 1;
    std::string what = error.what();    // "[json.exception.parse_error.101] parse error at line 1, column 2: what is meant"
    if (const std::size_t colon = what.find(": "); colon != std::string::npos) what = what.substr(colon + 2);
    user_error("{}:{}:{}: not JSON: {}", where, line, column, what.substr(0, 500));
  } catch (const typename J::exception& error) {
    user_error("{}: not JSON: {}", where, error.what());
  }
}

Json parse_json(const std::string& text, const std::string& where) { return parse_or_explain<Json>(text, where); }
LargeJson parse_large_json(const std::string& text, const std::string& where) { return parse_or_explain<LargeJson>(text, where); }

Json read_json(const std::string& path) { return parse_json(read_file(path), path); }

static std::string type_name(Json::value_t type) {
  switch (type) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "a list";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "true or false";
    case Json::value_t::number_float:
      return "a number";
    default:
      return "an integer";
  }
}

std::vector<std::int64_t> integers(const Json& list, const std::string& where) {
  if (!list.is_array()) user_error("{}: is {}, a list of integers was wanted", where, json_type(list));
  std::vector<std::int64_t> out;
  for (const Json& value : list) {
    if (!value.is_number_integer())
      user_error("{}: {} is in a list of integers", where, value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80));
    out.push_back(value.get<std::int64_t>());
  }
  return out;
}

std::string json_type(const Json& value) { return type_name(value.type()); }
std::string json_type(const LargeJson& value) { return type_name(value.type()); }

}    // namespace sheaf
