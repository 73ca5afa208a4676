#include "engine/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/error.h"

namespace sheaf {

AppendFile::AppendFile(const std::string& path)
    : path_(path), file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
  if (file_ < 0) user_error("{}: cannot be written: {}", path, std::generic_category().message(errno));
}
AppendFile::~AppendFile() { ::close(file_); }

std::string AppendFile::append(std::string_view bytes) {
  waiting_ += bytes;
  std::size_t done = 0;
  int error = 0;
  while (done < waiting_.size() && error == 0) {
    const ssize_t n = ::write(file_, waiting_.data() + done, waiting_.size() - done);
    if (n > 0)
      done += static_cast<std::size_t>(n);
    else if (n == 0 || errno != EINTR)
      error = n == 0 ? ENOSPC : errno;
  }
  waiting_.erase(0, done);
  return error == 0 ? "" : std::generic_category().message(error);
}

}    // namespace sheaf
