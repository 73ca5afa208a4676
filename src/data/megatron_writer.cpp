#include "data/megatron_writer.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <utility>

#include "base/error.h"
#include "data/megatron.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

// A longer document is several sequences: an index holds their lengths as int32.
constexpr std::int64_t kLongestSequence = std::int64_t{1} << 30;
constexpr std::size_t kBuffer = std::size_t{1} << 20;    // bytes

std::string folder_of(const std::string& prefix) {
  const std::string folder = fs::path(prefix).parent_path();
  return folder.empty() ? "." : folder;
}

FileLock lock_prefix(const std::string& prefix) {
  std::error_code error;
  fs::create_directories(folder_of(prefix), error);
  if (error) user_error("{}: cannot be made: {}", folder_of(prefix), error.message());
  auto lock = FileLock::try_lock(MegatronWriter::lock_path(prefix));
  if (!lock) user_error("{}: another process is writing it", prefix);
  return std::move(*lock);
}

// Values of one type at the end of a file, through a buffer.
class Appender {
 public:
  explicit Appender(const std::string& path) : file_(path) {}
  template <class T>
  void add(T value) {
    const std::size_t at = buffer_.size();
    buffer_.resize(at + sizeof(T));
    std::memcpy(buffer_.data() + at, &value, sizeof(T));
    if (buffer_.size() >= kBuffer) flush();
  }
  void finish() { flush(), file_.sync_and_close(); }

 private:
  void flush() {
    file_.write_at(size_, buffer_);
    size_ += std::ssize(buffer_);
    buffer_.clear();
  }
  OutputFile file_;
  std::vector<std::byte> buffer_;
  std::int64_t size_ = 0;
};

void rename_to(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) user_error("{}: cannot be written: {}", to, std::strerror(errno));
}
void remove_file(const std::string& path) {
  std::error_code error;
  fs::remove(path, error);
  if (error) user_error("{}: cannot be removed: {}", path, error.message());
}

}    // namespace

class MegatronWriter::BitFile {
 public:
  explicit BitFile(const std::string& path) : out_(path) {}
  void add(std::uint8_t bit) {
    byte_ = static_cast<std::uint8_t>(byte_ | (bit ? 1u << used_ : 0u));
    if (++used_ == 8) out_.add(byte_), byte_ = 0, used_ = 0;
  }
  void finish() {
    if (used_ > 0) out_.add(byte_);
    out_.finish();
  }

 private:
  Appender out_;
  std::uint8_t byte_ = 0;
  int used_ = 0;
};

MegatronWriter::MegatronWriter(const std::string& prefix, std::int64_t vocab) : MegatronWriter(prefix, vocab, lock_prefix(prefix)) {}

MegatronWriter::MegatronWriter(const std::string& prefix, std::int64_t vocab, FileLock lock)
    : prefix_(prefix), lock_(std::move(lock)), wide_(vocab >= 65500) {
  static_assert(std::endian::native == std::endian::little);
  bin_.emplace(temporary(".bin"));
}

MegatronWriter::~MegatronWriter() {
  std::error_code ignored;
  if (!finished_)
    for (const char* ending : {".bin", ".mask", ".idx"}) fs::remove(temporary(ending), ignored);
}

void MegatronWriter::append(std::span<const std::int32_t> ids, std::span<const std::uint8_t> counts) {
  SHEAF_CHECK(counts.empty() || counts.size() == ids.size(), "{} marks for {} tokens", counts.size(), ids.size());
  const std::size_t width = wide_ ? 4 : 2;
  for (std::size_t begin = 0; begin < ids.size(); begin += kBuffer / 4) {
    const auto block = ids.subspan(begin, std::min(kBuffer / 4, ids.size() - begin));
    buffer_.resize(block.size() * width);
    if (wide_) {
      std::memcpy(buffer_.data(), block.data(), buffer_.size());
    } else {
      auto* out = reinterpret_cast<std::uint16_t*>(buffer_.data());
      std::transform(block.begin(), block.end(), out, [](std::int32_t id) { return static_cast<std::uint16_t>(id); });
    }
    bin_->write_at((tokens_ + static_cast<std::int64_t>(begin)) * static_cast<std::int64_t>(width), buffer_);
  }
  if (!mask_ && std::find(counts.begin(), counts.end(), 0) != counts.end()) {
    mask_ = std::make_unique<BitFile>(temporary(".mask"));
    for (std::int64_t i = 0; i < tokens_; ++i) mask_->add(1);
  }
  if (mask_)
    for (std::size_t i = 0; i < ids.size(); ++i) mask_->add(counts.empty() ? 1 : counts[i]);
  tokens_ += std::ssize(ids);
  document_tokens_ += std::ssize(ids);
}

void MegatronWriter::end_document() {
  for (bool first = true; first || document_tokens_ > 0; first = false) {
    const std::int64_t length = std::min(document_tokens_, kLongestSequence);
    if (!first) continued_.push_back(std::ssize(lengths_));
    lengths_.push_back(static_cast<std::int32_t>(length));
    document_tokens_ -= length;
  }
}

void MegatronWriter::write_index() {
  Appender out(temporary(".idx"));
  for (const char c : kMegatronMagic) out.add(c);
  out.add<std::uint64_t>(1);
  out.add<std::uint8_t>(wide_ ? 4 : 8);
  out.add<std::uint64_t>(lengths_.size());
  out.add<std::uint64_t>(lengths_.size() - continued_.size() + 1);
  for (const std::int32_t length : lengths_) out.add(length);
  std::int64_t pointer = 0;
  for (const std::int32_t length : lengths_) {
    out.add(pointer);
    pointer += std::int64_t{length} * (wide_ ? 4 : 2);
  }
  auto continued = continued_.begin();
  for (std::int64_t i = 0; i <= std::ssize(lengths_); ++i)
    if (continued != continued_.end() && *continued == i)
      ++continued;
    else
      out.add(i);
  out.finish();
}

void MegatronWriter::finish() {
  SHEAF_CHECK(document_tokens_ == 0, "{}: the last document is open", prefix_);
  bin_->sync_and_close();
  if (mask_) mask_->finish();
  write_index();
  remove_file(path(".idx"));
  remove_file(path(".mask"));
  if (mask_) rename_to(temporary(".mask"), path(".mask"));
  rename_to(temporary(".bin"), path(".bin"));
  sync_folder(folder_of(prefix_));    // the .idx says that the rest is there, so the rest comes first
  rename_to(temporary(".idx"), path(".idx"));
  finished_ = true;
  sync_folder(folder_of(prefix_));
}

}    // namespace sheaf
