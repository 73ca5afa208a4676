#pragma once
#include <cstdint>
#include <string>

#include "base/mapped_file.h"
#include "data/tokens.h"

namespace sheaf {

// A .txt file whose bytes are its tokens: one document, the end-of-text token after it. Memory-mapped.
class TextSource : public TokenSource {
 public:
  TextSource(const std::string& path, std::int64_t vocab, std::int32_t end_of_text);

  std::int64_t size() const override { return static_cast<std::int64_t>(file_.bytes().size()) + 1; }
  std::int64_t document_count() const override { return 1; }
  std::int64_t document_begin(std::int64_t d) const override { return d == 0 ? 0 : size(); }
  void read(std::int64_t begin, std::span<std::int32_t> out) const override;

 private:
  MappedFile file_;
  std::int32_t end_of_text_;
};

}    // namespace sheaf
