#pragma once
// Scalars for TensorBoard: an event file, which is a sequence of records
//   u64 length · u32 masked CRC-32C of the length · the bytes · u32 masked CRC-32C of the bytes             (little-endian)
// each of them an Event of tensorboard/compat/proto/event.proto. The few fields that are needed are encoded here.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "engine/append_file.h"

namespace sheaf {

// CRC-32C: polynomial 0x1edc6f41 (reflected 0x82f63b78), start and end inverted (RFC 3720, appendix B.4).
std::uint32_t crc32c(std::string_view bytes);

class EventFile {
 public:
  // A new file in the folder, after those that are there. If there are any, the file begins by taking back what they say of `first_step`
  // and later steps: a resumed run says it anew. UserError if it cannot be made.
  EventFile(const std::string& folder, std::int64_t first_step);

  // {tag, value}; stored as fp32. Result as of AppendFile::append.
  std::string add(std::int64_t step, std::span<const std::pair<std::string, double>> scalars);
  std::string flush() { return file_.append({}); }    // tries again what waits
  const std::string& path() const { return file_.path(); }

 private:
  AppendFile file_;
};

}    // namespace sheaf
