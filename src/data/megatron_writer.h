#pragma once
// Writes token files of Megatron-LM; data/megatron.h describes them, and the mask beside them.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/file_lock.h"
#include "base/output_file.h"
#include "data/token_sink.h"

namespace sheaf {

// PREFIX.bin and PREFIX.idx, and PREFIX.mask if some token does not count for the loss. They appear at finish(): written under temporary
// names, flushed, renamed, the .idx last and an old one removed first. So a process killed at any time leaves no pair that looks complete
// and is not. While it lives it holds PREFIX.lock.
// Memory: 4 bytes a document.
class MegatronWriter : public TokenSink {
 public:
  // Ids are uint16 where `vocab` is below 65500 and int32 otherwise, as Megatron chooses (DType.optimal_dtype).
  // UserError: the folder cannot be written, or another process writes the same prefix.
  MegatronWriter(const std::string& prefix, std::int64_t vocab);
  MegatronWriter(const std::string& prefix, std::int64_t vocab, FileLock lock);    // held by the caller so far
  ~MegatronWriter() override;                                                      // not finished: nothing stays behind

  void append(std::span<const std::int32_t> ids, std::span<const std::uint8_t> counts = {}) override;
  void end_document() override;
  void finish();

  static std::string lock_path(const std::string& prefix) { return prefix + ".lock"; }

 private:
  class BitFile;    // the mask
  std::string path(const char* ending) const { return prefix_ + ending; }
  std::string temporary(const char* ending) const { return prefix_ + ending + ".tmp"; }
  void write_index();

  std::string prefix_;
  FileLock lock_;
  bool wide_;    // int32
  std::optional<OutputFile> bin_;
  std::unique_ptr<BitFile> mask_;    // none yet: every token so far counts
  std::vector<std::byte> buffer_;
  std::int64_t tokens_ = 0, document_tokens_ = 0;
  std::vector<std::int32_t> lengths_;      // of sequences
  std::vector<std::int64_t> continued_;    // sequences that go on the document of the one before: of documents too long for an int32
  bool finished_ = false;
};

}    // namespace sheaf
