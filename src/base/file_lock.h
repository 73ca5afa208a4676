#pragma once
#include <optional>
#include <string>
#include <utility>

namespace sheaf {

// A file that one process holds at a time; the kernel lets go of it when the process dies, however it dies. The file goes away with the
// lock, so nothing stays behind but after a kill.
class FileLock {
 public:
  // Nothing if another process (or another FileLock of this one) holds it. UserError if the file cannot be made.
  static std::optional<FileLock> try_lock(const std::string& path);

  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  FileLock(std::string path, int file) : path_(std::move(path)), file_(file) {}
  std::string path_;
  int file_;
};

}    // namespace sheaf
