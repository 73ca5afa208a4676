#include "data/byte_stream.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"

namespace sheaf {
namespace {

constexpr std::size_t kBlock = std::size_t{1} << 20;

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(const std::string& path) : file_(path) {}
  std::string_view next() override {
    const auto rest = file_.bytes().subspan(done_);
    const auto block = rest.first(std::min(kBlock, rest.size()));
    file_.forget(done_);    // what was given before
    done_ += block.size();
    return {reinterpret_cast<const char*>(block.data()), block.size()};
  }
  std::int64_t consumed() const override { return static_cast<std::int64_t>(done_); }
  std::int64_t size() const override { return static_cast<std::int64_t>(file_.bytes().size()); }

 private:
  MappedFile file_;
  std::size_t done_ = 0;
};

// What the two compressed kinds share: input from the map, a block of output, and how damage is said.
class DecodedStream : public ByteStream {
 public:
  DecodedStream(const std::string& path, const char* format) : file_(path), format_(format), out_(kBlock) {}
  std::int64_t consumed() const override { return static_cast<std::int64_t>(done_); }
  std::int64_t size() const override { return static_cast<std::int64_t>(file_.bytes().size()); }
  std::string_view next() override {
    std::size_t written = 0;
    file_.forget(done_);
    while (written < out_.size()) {
      if (between_ && done_ == file_.bytes().size() && done_ > 0) break;
      const auto [read, wrote] = decode(file_.bytes().subspan(done_), written);
      done_ += read, written += wrote;
      if (read == 0 && wrote == 0)
        user_error("{}: {} data ends at byte {} in the middle of a {}: truncated", file_.path(), format_, done_, part());
    }
    return {out_.data(), written};
  }

 protected:
  // Reads from `in`, writes to out_ from `written` on: how much of each. Sets between_ where a member or frame is complete.
  virtual std::pair<std::size_t, std::size_t> decode(std::span<const std::byte> in, std::size_t written) = 0;
  virtual const char* part() const = 0;
  [[noreturn]] void damaged(std::size_t at, const char* why) const {
    user_error("{}: {} data is damaged at byte {} of {}: {}", file_.path(), format_, done_ + at, file_.bytes().size(), why);
  }

  MappedFile file_;
  const char* format_;
  std::vector<char> out_;
  std::size_t done_ = 0;
  bool between_ = true;    // no member or frame is open
};

class GzipStream : public DecodedStream {
 public:
  explicit GzipStream(const std::string& path) : DecodedStream(path, "gzip") {
    SHEAF_CHECK(::inflateInit2(&state_, 15 + 16) == Z_OK, "zlib: inflateInit2");    // 15: any window; + 16: gzip and nothing else
  }
  ~GzipStream() override { ::inflateEnd(&state_); }

 protected:
  const char* part() const override { return "member"; }
  std::pair<std::size_t, std::size_t> decode(std::span<const std::byte> in, std::size_t written) override {
    if (between_ && !in.empty()) ::inflateReset(&state_), between_ = false;
    const std::size_t most = std::min<std::size_t>(in.size(), 1u << 30);
    const std::size_t room = out_.size() - written;
    state_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
    state_.avail_in = static_cast<uInt>(most);
    state_.next_out = reinterpret_cast<Bytef*>(out_.data() + written);
    state_.avail_out = static_cast<uInt>(room);
    const int code = ::inflate(&state_, Z_NO_FLUSH);
    const std::size_t read = most - state_.avail_in;
    if (code == Z_STREAM_END)
      between_ = true;
    else if (code != Z_OK && code != Z_BUF_ERROR)
      damaged(read, state_.msg ? state_.msg : ::zError(code));
    return {read, room - state_.avail_out};
  }

 private:
  z_stream state_{};
};

class ZstdStream : public DecodedStream {
 public:
  explicit ZstdStream(const std::string& path) : DecodedStream(path, "zstd"), state_(::ZSTD_createDCtx()) {
    SHEAF_CHECK(state_, "zstd: ZSTD_createDCtx");
    ::ZSTD_DCtx_setParameter(state_, ZSTD_d_windowLogMax, kWindowLog);    // what `zstd --long=31` writes is read, too
  }
  ~ZstdStream() override { ::ZSTD_freeDCtx(state_); }

 protected:
  const char* part() const override { return "frame"; }
  std::pair<std::size_t, std::size_t> decode(std::span<const std::byte> in, std::size_t written) override {
    ZSTD_inBuffer from{in.data(), in.size(), 0};
    ZSTD_outBuffer to{out_.data(), out_.size(), written};
    const std::size_t left = ::ZSTD_decompressStream(state_, &to, &from);
    if (::ZSTD_isError(left)) damaged(from.pos, ::ZSTD_getErrorName(left));
    between_ = left == 0;
    return {from.pos, to.pos - written};
  }

 private:
  static constexpr int kWindowLog = 31;    // zstd's own constant is in its unstable part
  ZSTD_DCtx* state_;
};

}    // namespace

bool is_compressed(const std::string& path) { return path.ends_with(".gz") || path.ends_with(".zst"); }

std::unique_ptr<ByteStream> open_byte_stream(const std::string& path) {
  if (path.ends_with(".gz")) return std::make_unique<GzipStream>(path);
  if (path.ends_with(".zst")) return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

}    // namespace sheaf
