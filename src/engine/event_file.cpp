#include "engine/event_file.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <filesystem>

#include "base/error.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "events.out.tfevents.";

// ---- protocol buffers: a key is field number << 3 | wire type, 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
template <class T>
std::string raw(T value) {
  const auto bytes = std::bit_cast<std::array<char, sizeof(T)>>(value);
  return {bytes.data(), bytes.size()};
}
std::string key(std::uint64_t field, std::uint64_t wire_type) { return varint(field << 3 | wire_type); }
std::string integer(std::uint64_t field, std::int64_t value) { return key(field, 0) + varint(static_cast<std::uint64_t>(value)); }
std::string bytes(std::uint64_t field, std::string_view value) { return key(field, 2) + varint(value.size()) + std::string(value); }

// Event: wall_time 1, step 2, file_version 3, summary 5, session_log 7
std::string event(std::int64_t step, const std::string& what) {
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  return key(1, 1) + raw(now) + integer(2, step) + what;
}

std::uint32_t masked(std::uint32_t crc) { return std::rotr(crc, 15) + 0xa282ead8u; }

std::string record(const std::string& data) {
  const std::string length = raw(static_cast<std::uint64_t>(data.size()));
  return length + raw(masked(crc32c(length))) + data + raw(masked(crc32c(data)));
}

std::int64_t time_in(const std::string& name) {
  std::int64_t time = 0;
  for (std::size_t i = kPrefix.size(); i < name.size() && name[i] >= '0' && name[i] <= '9' && time < 1'000'000'000'000; ++i)
    time = time * 10 + (name[i] - '0');
  return time;
}

// Readers take the files of a folder in the order of their names.
std::int64_t newest_in(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) user_error("{}: cannot be made: {}", folder, error.message());
  std::int64_t newest = 0;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (const std::string name = entry.path().filename(); name.starts_with(kPrefix)) newest = std::max(newest, time_in(name));
  return newest;
}

std::string file_after(const std::string& folder, std::int64_t newest) {
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  char host[256] = "host";
  ::gethostname(host, sizeof(host) - 1);
  return fmt::format("{}/{}{:010}.{}.{}", folder, kPrefix, std::max<std::int64_t>(now, newest + 1), host, ::getpid());
}

}    // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static const auto kTable = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < table.size(); ++i) {
      std::uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
      table[i] = crc;
    }
    return table;
  }();
  std::uint32_t crc = ~0u;
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ crc >> 8;
  return ~crc;
}

EventFile::EventFile(const std::string& folder, std::int64_t first_step) : file_(file_after(folder, newest_in(folder))) {
  std::string head = record(event(0, bytes(3, "brain.Event:2")));
  constexpr std::int64_t kStart = 1;    // SessionLog.status: readers drop what earlier files say from this step on
  head += record(event(first_step, bytes(7, integer(1, kStart))));
  if (const std::string error = file_.append(head); !error.empty()) user_error("{}: cannot be written: {}", file_.path(), error);
}

std::string EventFile::add(std::int64_t step, std::span<const std::pair<std::string, double>> scalars) {
  std::string summary;    // Summary: value 1, each with tag 1 and simple_value 2
  for (const auto& [tag, value] : scalars) summary += bytes(1, bytes(1, tag) + key(2, 5) + raw(static_cast<float>(value)));
  return file_.append(record(event(step, bytes(5, summary))));
}

}    // namespace sheaf
