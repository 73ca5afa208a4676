#pragma once
// A file that grows while a run goes on. What a full disk does not take waits in memory, in order, and goes first the next time: a run
// outlives a disk that is full for a while, and the file has no gap.
#include <string>
#include <string_view>

namespace sheaf {

class AppendFile {
 public:
  explicit AppendFile(const std::string& path);    // made if it is not there; UserError with the system's reason
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  ~AppendFile();

  // "": everything so far is in the file. Else the system's reason why something still waits.
  std::string append(std::string_view bytes);
  const std::string& path() const { return path_; }

 private:
  std::string path_, waiting_;
  int file_;
};

}    // namespace sheaf
