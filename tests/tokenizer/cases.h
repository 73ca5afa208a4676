#pragma once
// What make_tokenizers.py wrote.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace sheaf::test {

inline std::string tokenizer_folder() {
  const char* given = std::getenv("SHEAF_TOKENIZER_CASES");    // the nightly test's
  return given ? given : ".cache/tokenizers";
}

class CaseReader {
 public:
  explicit CaseReader(const std::string& path) : bytes_(read_file(path)) {}
  bool done() const { return at_ == bytes_.size(); }
  std::uint32_t number() {
    std::uint32_t value;
    SHEAF_CHECK(at_ + 4 <= bytes_.size(), "cases end early");
    std::memcpy(&value, bytes_.data() + at_, 4);
    at_ += 4;
    return value;
  }
  std::string text() {
    const std::uint32_t size = number();
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  std::vector<std::int32_t> ids() {
    std::vector<std::int32_t> out(number());
    for (auto& id : out) id = static_cast<std::int32_t>(number());
    return out;
  }

 private:
  std::string bytes_;
  std::size_t at_ = 0;
};

// Names of the tokenizers there.
inline std::vector<std::string> tokenizer_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(tokenizer_folder()))
    if (std::filesystem::exists(entry.path() / "cases")) names.push_back(entry.path().filename());
  return names;
}

}    // namespace sheaf::test
