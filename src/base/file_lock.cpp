#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/error.h"

namespace sheaf {

std::optional<FileLock> FileLock::try_lock(const std::string& path) {
  while (true) {
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) user_error("{}: cannot be written: {}", path, std::generic_category().message(errno));
    if (::flock(file, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      ::close(file);
      if (error == EINTR) continue;
      if (error != EWOULDBLOCK) user_error("{}: cannot be locked: {}", path, std::generic_category().message(error));
      return std::nullopt;
    }
    // The last holder may have removed the name between our open and our lock: then what we hold is no one's door.
    struct stat held {
    }, named{};
    if (::fstat(file, &held) == 0 && ::stat(path.c_str(), &named) == 0 && held.st_ino == named.st_ino && held.st_dev == named.st_dev)
      return FileLock(path, file);
    ::close(file);
  }
}

FileLock::FileLock(FileLock&& other) noexcept : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}

FileLock::~FileLock() {
  if (file_ < 0) return;
  ::unlink(path_.c_str());    // while it is held
  ::close(file_);
}

}    // namespace sheaf
