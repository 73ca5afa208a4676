#pragma once
// A whole file as read-only memory. Pages come from the page cache when touched, so a file larger than memory is fine.
#include <cstddef>
#include <span>
#include <string>

namespace sheaf {

class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);    // throws UserError with the reason of the operating system
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Bytes before `end` will not be read soon: their pages leave the process's memory. Reading them again is right, but slow.
  void forget(std::size_t end);
  void forget() const;    // the same of all bytes; others may be reading them

 private:
  std::string path_;
  const std::byte* data_ = nullptr;    // nullptr: an empty file, which cannot be mapped
  std::size_t size_ = 0, forgotten_ = 0;
};

}    // namespace sheaf
