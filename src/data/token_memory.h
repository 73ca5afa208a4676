#pragma once
#include <string>
#include <vector>

#include "data/token_sink.h"
#include "data/tokens.h"

namespace sheaf {

// Tokens kept in memory: 4 bytes each, and one more if some do not count. Filled as a sink, then read as a source.
class TokenMemory : public TokenSink, public TokenSource {
 public:
  explicit TokenMemory(std::string path) : TokenSource(std::move(path)) {}

  void append(std::span<const std::int32_t> ids, std::span<const std::uint8_t> counts = {}) override;
  void end_document() override { begins_.push_back(std::ssize(ids_)); }

  std::int64_t size() const override { return std::ssize(ids_); }
  std::int64_t document_count() const override { return std::ssize(begins_) - 1; }
  std::int64_t document_begin(std::int64_t d) const override { return begins_[static_cast<std::size_t>(d)]; }
  void read(std::int64_t begin, std::span<std::int32_t> out) const override;
  bool masked() const override { return !counts_.empty(); }
  bool counts(std::int64_t token) const override { return counts_.empty() || counts_[static_cast<std::size_t>(token)] != 0; }

 private:
  std::vector<std::int32_t> ids_;
  std::vector<std::uint8_t> counts_;          // empty: all count
  std::vector<std::int64_t> begins_ = {0};    // of documents, then the size
};

}    // namespace sheaf
