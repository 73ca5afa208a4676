#pragma once
// Files under construction, flushed to the disk before anyone is told that they are there.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace sheaf {

// Every failure (disk full, no permission) is a UserError with the path and the system's reason.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;
  ~OutputFile();

  void write_at(std::int64_t offset, std::span<const std::byte> bytes);
  void write_at(std::int64_t offset, std::string_view text) { write_at(offset, std::as_bytes(std::span(text))); }
  void sync_and_close();

 private:
  std::string path_;
  int file_ = -1;
};

// A rename is on the disk once the folder that holds the names is.
void sync_folder(const std::string& path);

}    // namespace sheaf
