#pragma once
// Token files of Megatron-LM, as its IndexedDataset reads them. PREFIX.bin: the tokens, nothing else. PREFIX.idx, little-endian:
//   9 bytes "MMIDIDX\0\0" · u64 version 1 · u8 dtype code · u64 sequences n · u64 entries of the document index m ·
//   i32 × n tokens of each sequence · i64 × n its first byte in the .bin · i64 × m document index: document d is the sequences
//   [index[d], index[d + 1]), so that m is the number of documents + 1, the first entry 0 and the last n
// What Megatron's writer produces is demanded: sequences that follow one another and cover the whole .bin.
// PREFIX.mask, Sheaf's own and there only where some token does not count for the loss: a bit a token, bit i % 8 of byte i / 8, 1 if
// predicting it counts. Megatron does not look at it.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "data/tokens.h"

namespace sheaf {

inline constexpr std::string_view kMegatronMagic("MMIDIDX\0\0", 9);

class MegatronSource : public TokenSource {
 public:
  // `shown`: the path for errors about what is in it; "": that of the .bin.
  MegatronSource(const std::string& bin, std::int64_t vocab, const std::string& shown = "");

  std::int64_t size() const override { return begins_.back(); }
  std::int64_t document_count() const override { return static_cast<std::int64_t>(begins_.size()) - 1; }
  std::int64_t document_begin(std::int64_t d) const override { return begins_[static_cast<std::size_t>(d)]; }
  void read(std::int64_t begin, std::span<std::int32_t> out) const override;
  bool masked() const override { return mask_.has_value(); }
  bool counts(std::int64_t token) const override {
    return !mask_ || (std::to_integer<unsigned>(mask_->bytes()[static_cast<std::size_t>(token / 8)]) >> (token % 8) & 1) != 0;
  }

 private:
  void read_index(const std::string& idx);
  void read_mask(const std::string& mask);
  template <class F>
  auto with_ids(F&& f) const;    // f(span of the ids in their own type)

  MappedFile bin_;
  std::optional<MappedFile> mask_;
  bool wide_ = false;                   // int32, else uint16
  std::vector<std::int64_t> begins_;    // of documents, then the size
};

}    // namespace sheaf
