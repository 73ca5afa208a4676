#include "checkpoint/atomic_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/text.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& path, const std::error_code& reason) {
  user_error("{}: cannot be written: {}", path, reason.message());
}
[[noreturn]] void fail(const std::string& path) { fail(path, {errno, std::generic_category()}); }

bool may_be_replaced(const fs::path& folder, const std::string& marker) {
  if (!fs::is_directory(folder)) return false;
  bool empty = true, marked = false, nested = false;
  for (const auto& entry : fs::directory_iterator(folder)) {
    empty = false;
    marked = marked || entry.path().filename() == marker;
    nested = nested || entry.is_directory();
  }
  return empty || (marked && !nested);
}

}    // namespace

AtomicFolder::AtomicFolder(const std::string& folder, const std::string& marker) {
  try {
    fs::path target = fs::weakly_canonical(fs::absolute(folder));    // through links: the folder is replaced, not the link to it
    if (!target.has_filename()) target = target.parent_path();
    folder_ = target;
    replaces_ = fs::exists(target);
    if (replaces_ && !may_be_replaced(target, marker))
      user_error("{}: exists and is not a folder that holds {} and files only; it is left alone", folder, quote(marker));
    fs::create_directories(target.parent_path());
    temporary_ = fmt::format("{}.tmp-{}", folder_, ::getpid());
    fs::remove_all(temporary_);    // of a dead process that had our number
    fs::create_directory(temporary_);
  } catch (const fs::filesystem_error& error) {
    fail(folder, error.code());
  }
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

OutputFile AtomicFolder::create(const std::string& name) const { return OutputFile(temporary_ + "/" + name); }

void AtomicFolder::write(const std::string& name, std::string_view text) const {
  OutputFile file = create(name);
  file.write_at(0, text);
  file.sync_and_close();
}

void AtomicFolder::copy(const std::string& from, const std::string& name) const {
  const MappedFile source(from);
  OutputFile file = create(name);
  file.write_at(0, source.bytes());
  file.sync_and_close();
}

void AtomicFolder::commit() {
  sync_folder(temporary_);
  const std::string parent = fs::path(folder_).parent_path();
  // Exchange keeps a whole folder under the name at every instant. A file system without it gets two renames and a short gap.
  if (replaces_ && ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, folder_.c_str(), RENAME_EXCHANGE) == 0) {
    sync_folder(parent);    // before the old one goes
  } else if (replaces_) {
    const std::string old = temporary_ + ".old";
    if (::rename(folder_.c_str(), old.c_str()) != 0) fail(folder_);
    if (::rename(temporary_.c_str(), folder_.c_str()) != 0) {
      const std::error_code reason(errno, std::generic_category());
      if (::rename(old.c_str(), folder_.c_str()) != 0) fail(old);
      fail(folder_, reason);
    }
    temporary_ = old;
    sync_folder(parent);
  } else {
    if (::rename(temporary_.c_str(), folder_.c_str()) != 0) fail(folder_);
    sync_folder(parent);
  }
  committed_ = true;
  std::error_code ignored;
  if (replaces_) fs::remove_all(temporary_, ignored);
}

}    // namespace sheaf
