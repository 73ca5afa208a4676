#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace sheaf {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const auto fail = [&](int error) { user_error("{}: cannot be read: {}", path, std::generic_category().message(error)); };
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(errno);
  struct stat status {};
  int error = ::fstat(file, &status) == 0 ? 0 : errno;
  if (!error && S_ISDIR(status.st_mode)) error = EISDIR;
  if (!error && status.st_size > 0) {
    void* memory = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    if (memory == MAP_FAILED) {
      error = errno;
    } else {
      data_ = static_cast<const std::byte*>(memory);
      size_ = static_cast<std::size_t>(status.st_size);
    }
  }
  ::close(file);
  if (error) fail(error);
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(forgotten_, other.forgotten_);
  return *this;
}

void MappedFile::forget(std::size_t end) {
  constexpr std::size_t kStep = std::size_t{1} << 26;    // a multiple of the page size of any machine
  const std::size_t whole = std::min(end, size_) / kStep * kStep;
  if (whole <= forgotten_) return;
  ::madvise(const_cast<std::byte*>(data_) + forgotten_, whole - forgotten_, MADV_DONTNEED);    // advice: a refusal changes no result
  forgotten_ = whole;
}

void MappedFile::forget() const {
  if (data_) ::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

}    // namespace sheaf
