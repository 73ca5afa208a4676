#include "base/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace sheaf {
namespace {

[[noreturn]] void fail(const std::string& path, const std::error_code& reason) {
  user_error("{}: cannot be written: {}", path, reason.message());
}
[[noreturn]] void fail(const std::string& path) { fail(path, {errno, std::generic_category()}); }

}    // namespace

OutputFile::OutputFile(const std::string& path) : path_(path), file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
  if (file_ < 0) fail(path_);
}
OutputFile::OutputFile(OutputFile&& other) noexcept : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}
OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  return *this;
}
OutputFile::~OutputFile() {
  if (file_ >= 0) ::close(file_);
}

void OutputFile::write_at(std::int64_t offset, std::span<const std::byte> bytes) {
  SHEAF_CHECK(file_ >= 0, "{}: written after it was closed", path_);
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(file_, bytes.data(), std::min<std::size_t>(bytes.size(), 1u << 30), offset);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail(path_);
    if (done == 0) fail(path_, std::make_error_code(std::errc::no_space_on_device));
    bytes = bytes.subspan(static_cast<std::size_t>(done));
    offset += done;
  }
}

void OutputFile::sync_and_close() {
  SHEAF_CHECK(file_ >= 0, "{}: closed twice", path_);
  if (::fsync(file_) != 0) fail(path_);
  if (::close(std::exchange(file_, -1)) != 0) fail(path_);
}

void sync_folder(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) fail(path);
  const bool good = ::fsync(file) == 0 || errno == EINVAL;    // EINVAL: a file system without it
  const int error = errno;
  ::close(file);
  if (!good) fail(path, {error, std::generic_category()});
}

}    // namespace sheaf
