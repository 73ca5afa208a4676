#pragma once
// For tests that write files: a folder that goes away, and the text of an expected error.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>

#include "base/error.h"

namespace sheaf::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sheaf-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  // Writes a file and returns its path.
  std::string file(const std::string& name, const std::string& bytes) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return *this / name;
  }

 private:
  std::filesystem::path path_;
};

// The message of the UserError that f() throws; any other exception passes, none gives "no error".
template <class F>
std::string user_error_of(F&& f) {
  try {
    f();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

}    // namespace sheaf::test

// The error's message holds every one of the texts.
#define EXPECT_USER_ERROR(statement, ...)                                                                    \
  do {                                                                                                       \
    const std::string message_ = ::sheaf::test::user_error_of([&] { statement; });                           \
    for (const std::string& part_ : std::initializer_list<std::string>{__VA_ARGS__})                         \
      EXPECT_NE(message_.find(part_), std::string::npos) << "wanted: " << part_ << "\nfound:  " << message_; \
  } while (0)
