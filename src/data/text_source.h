#pragma once
// Text whose bytes are its tokens, the end-of-text token after every document.
#include <cstdint>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "data/tokens.h"

namespace sheaf {

// The whole file is one document. Memory-mapped.
class TextSource : public TokenSource {
 public:
  TextSource(const std::string& path, const TokenOptions& options);

  std::int64_t size() const override { return static_cast<std::int64_t>(file_.bytes().size()) + 1; }
  std::int64_t document_count() const override { return 1; }
  std::int64_t document_begin(std::int64_t d) const override { return d == 0 ? 0 : size(); }
  void read(std::int64_t begin, std::span<std::int32_t> out) const override;

 private:
  MappedFile file_;
  std::int32_t end_of_text_;
};

// One document a line, blank lines aside. The decoded text is held in memory: escapes make a line's tokens unfindable in the file.
class JsonlSource : public TokenSource {
 public:
  JsonlSource(const std::string& path, const TokenOptions& options);

  std::int64_t size() const override { return begins_.back(); }
  std::int64_t document_count() const override { return static_cast<std::int64_t>(begins_.size()) - 1; }
  std::int64_t document_begin(std::int64_t d) const override { return begins_[static_cast<std::size_t>(d)]; }
  void read(std::int64_t begin, std::span<std::int32_t> out) const override;

 private:
  std::string text_;                          // of all documents, a place for the end-of-text token after each: token i is byte i
  std::vector<std::int64_t> begins_ = {0};    // of documents, then the size
  std::int32_t end_of_text_;
};

}    // namespace sheaf
