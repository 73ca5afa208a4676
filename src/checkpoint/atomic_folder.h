#pragma once
// A folder that appears whole or not at all: files are written into FOLDER.tmp-PID, flushed to the disk, then renamed.
#include <string>
#include <string_view>

#include "base/output_file.h"

namespace sheaf {

class AtomicFolder {
 public:
  // Creates parents and the temporary folder. An existing FOLDER is replaced at commit, if it is empty or holds the file `marker`
  // and no folder: whatever else it is, it is not ours to delete, and a UserError says so.
  AtomicFolder(const std::string& folder, const std::string& marker);
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  ~AtomicFolder();    // not committed: removes the temporary folder

  const std::string& folder() const { return folder_; }
  const std::string& temporary() const { return temporary_; }    // where files lie until commit()
  OutputFile create(const std::string& name) const;
  void write(const std::string& name, std::string_view text) const;     // flushed
  void copy(const std::string& from, const std::string& name) const;    // flushed
  void commit();

 private:
  std::string folder_, temporary_;
  bool replaces_ = false, committed_ = false;
};

}    // namespace sheaf
