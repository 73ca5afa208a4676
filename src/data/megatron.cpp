#include "data/megatron.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/text.h"
#include "data/scan.h"

namespace sheaf {
namespace {

constexpr std::size_t kHeader = 34;
constexpr std::array<std::string_view, 9> kTypes = {"", "uint8", "int8", "int16", "int32", "int64", "float64", "float32", "uint16"};

// The arrays of an index lie at no particular alignment.
template <class T>
T load(std::span<const std::byte> bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

std::string beside(const std::string& bin, const char* ending) { return std::filesystem::path(bin).replace_extension(ending); }

}    // namespace

template <class F>
auto MegatronSource::with_ids(F&& f) const {
  const auto bytes = bin_.bytes();    // mapped at a page, so aligned
  if (wide_) return f(std::span(reinterpret_cast<const std::int32_t*>(bytes.data()), bytes.size() / 4));
  return f(std::span(reinterpret_cast<const std::uint16_t*>(bytes.data()), bytes.size() / 2));
}

MegatronSource::MegatronSource(const std::string& bin, std::int64_t vocab, const std::string& shown)
    : TokenSource(shown.empty() ? bin : shown), bin_(bin) {
  read_index(beside(bin, ".idx"));
  read_mask(beside(bin, ".mask"));
  with_ids([&](auto ids) {
    if (const std::int64_t at = first_not_below(ids, vocab); at >= 0)
      user_error("{}: token {} is {}, but the model's vocabulary has {} ids", bin, at, ids[static_cast<std::size_t>(at)], vocab);
  });
}

void MegatronSource::read_index(const std::string& idx) {
  std::error_code ignored;
  if (!std::filesystem::exists(idx, ignored)) user_error("{}: its index {} is missing", bin_.path(), idx);
  const MappedFile file(idx);
  const auto bytes = file.bytes();
  if (bytes.size() < kHeader) user_error("{}: has {} bytes, the header of a Megatron index has {}: truncated", idx, bytes.size(), kHeader);
  if (std::memcmp(bytes.data(), kMegatronMagic.data(), kMegatronMagic.size()) != 0)
    user_error("{}: does not start with MMIDIDX: not a Megatron index", idx);
  if (const auto version = load<std::uint64_t>(bytes, 9); version != 1) user_error("{}: has version {}; version 1 is read", idx, version);
  const auto code = load<std::uint8_t>(bytes, 17);
  wide_ = code == 4;
  if (code != 4 && code != 8)
    user_error("{}: its tokens are {}; uint16 and int32 are read", idx,
               code > 0 && code < kTypes.size() ? std::string(kTypes[code]) : fmt::format("of the unknown type {}", code));

  const auto sequences = load<std::uint64_t>(bytes, 18), entries = load<std::uint64_t>(bytes, 26);
  const std::size_t rest = bytes.size() - kHeader;
  // Divided, not multiplied: the counts are whatever the file says.
  const bool fits = sequences <= rest / 12 && entries <= (rest - sequences * 12) / 8;
  if (!fits)
    user_error("{}: has {} bytes, too few for {} sequences and a document index of {}: truncated", idx, bytes.size(), sequences, entries);
  if (const std::size_t more = rest - sequences * 12 - entries * 8; more == sequences && more > 0)
    user_error("{}: has a mode for every sequence: multimodal files are not read", idx);
  else if (more > 0)
    user_error("{}: has {} bytes more than {} sequences and a document index of {} need", idx, more, sequences, entries);

  const std::size_t pointers = kHeader + sequences * 4, documents = pointers + sequences * 8;
  const std::int64_t token_bytes = wide_ ? 4 : 2, bin_bytes = static_cast<std::int64_t>(bin_.bytes().size());
  if (entries == 0) user_error("{}: its document index is empty; the entry 0 was wanted at least", idx);

  std::int64_t size = 0;      // tokens of the sequences before i
  std::uint64_t entry = 0;    // of the document index
  begins_.reserve(entries);
  for (std::uint64_t i = 0; i <= sequences; ++i) {
    for (; entry < entries && load<std::int64_t>(bytes, documents + entry * 8) == static_cast<std::int64_t>(i); ++entry)
      begins_.push_back(size);
    if (entry == 0) break;    // the first document does not begin at sequence 0
    if (i == sequences) break;
    const auto length = load<std::int32_t>(bytes, kHeader + i * 4);
    if (length < 0) user_error("{}: sequence {} has {} tokens", idx, i, length);
    if (const auto pointer = load<std::int64_t>(bytes, pointers + i * 8); pointer != size * token_bytes)
      user_error("{}: sequence {} begins at byte {}, but those before it end at {}", idx, i, pointer, size * token_bytes);
    size += length;
    if (size * token_bytes > bin_bytes)
      user_error("{}: sequence {} ends at byte {}, but {} has {} bytes", idx, i, size * token_bytes, bin_.path(), bin_bytes);
  }
  if (entry < entries || load<std::int64_t>(bytes, documents + (entries - 1) * 8) != static_cast<std::int64_t>(sequences))
    user_error("{}: its document index does not rise from 0 to the {} sequences (entry {} is {})", idx, sequences,
               std::min(entry, entries - 1), load<std::int64_t>(bytes, documents + std::min(entry, entries - 1) * 8));
  if (size * token_bytes != bin_bytes)
    user_error("{}: describes {} tokens, {} bytes, but {} has {} bytes", idx, size, size * token_bytes, bin_.path(), bin_bytes);
}

void MegatronSource::read_mask(const std::string& mask) {
  std::error_code ignored;
  if (!std::filesystem::exists(mask, ignored)) return;
  mask_.emplace(mask);
  if (const std::int64_t wanted = (size() + 7) / 8; std::ssize(mask_->bytes()) != wanted)
    user_error(
        "{}: has {} bytes, but a bit for each of the {} tokens of {} is {}; it belongs to another file: tokenize again, or remove it", mask,
        mask_->bytes().size(), size(), bin_.path(), wanted);
}

void MegatronSource::read(std::int64_t begin, std::span<std::int32_t> out) const {
  SHEAF_CHECK(begin >= 0 && begin + std::ssize(out) <= size(), "tokens from {}, {} of them, of {}", begin, out.size(), size());
  with_ids([&](auto ids) { std::copy_n(ids.begin() + begin, out.size(), out.begin()); });
}

}    // namespace sheaf
