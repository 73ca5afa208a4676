#pragma once
// Parsers take paths; a fuzzer has bytes. Files in memory (/dev/shm where there is one), written over and over.
#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>

#include "base/error.h"

namespace sheaf::fuzz {

class ScratchFolder {
 public:
  ScratchFolder() {
    const bool in_memory = std::filesystem::is_directory("/dev/shm");
    path_ = (in_memory ? "/dev/shm" : std::filesystem::temp_directory_path().string()) + "/sheaf-fuzz-XXXXXX";
    SHEAF_CHECK(::mkdtemp(path_.data()), "{}: cannot be made", path_);
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }
  // Makes the file hold these bytes and returns its path.
  std::string write(const std::string& name, std::span<const std::uint8_t> bytes) const {
    const std::string path = path_ + "/" + name;
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    SHEAF_CHECK(file >= 0 && ::write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "{}: cannot be written",
                path);
    ::close(file);
    return path;
  }

 private:
  std::string path_;
};

// What a parser may do with bad bytes: throw UserError, and nothing else.
template <class F>
void parse(F&& f) {
  try {
    f();
  } catch (const UserError&) {
  }
}

}    // namespace sheaf::fuzz
