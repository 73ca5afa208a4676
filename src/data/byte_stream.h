#pragma once
// The bytes of a file, plain or compressed, one block after the other: a file larger than memory is fine.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace sheaf {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // The next bytes, valid until the next call; empty: there are no more. UserError with the offset in the file where it is damaged.
  virtual std::string_view next() = 0;
  virtual std::int64_t consumed() const = 0;    // bytes of the file, as it is on the disk, behind what next() gave
  virtual std::int64_t size() const = 0;        // of the file on the disk
};

// By the ending: .gz (gzip, any number of members), .zst (zstd, any number of frames), anything else as it is.
std::unique_ptr<ByteStream> open_byte_stream(const std::string& path);
bool is_compressed(const std::string& path);    // .gz or .zst

}    // namespace sheaf
