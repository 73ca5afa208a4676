#pragma once
// tokenizer.json of HuggingFace, read as it is: text to ids and back, the same ids as the `tokenizers` library gives. docs/tokenizers.md.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sheaf {

// Immutable: any number of threads may use one at once.
//
// Text is UTF-8. Where it is not, each maximal invalid subsequence is read as U+FFFD, as Python's errors="replace" does.
class Tokenizer {
 public:
  // Throws UserError, which names the file and the JSON path of what is malformed or not supported.
  static std::unique_ptr<Tokenizer> read(const std::string& path);
  static std::unique_ptr<Tokenizer> parse(const std::string& json, const std::string& where);    // `where` is named in errors
  ~Tokenizer();

  // Ids of a text, appended to `ids`. Added tokens inside the text are found; the post-processor is not applied.
  void encode(std::string_view text, std::vector<std::int32_t>& ids) const;
  // The same with the post-processor's tokens, as for a single sequence.
  std::vector<std::int32_t> encode_with_template(std::string_view text) const;

  // A document may be encoded in parts, by several threads or a window at a time. `cuts` gives ends of parts of about `part_bytes` each
  // (the last is the size), at places where a part's ids depend on nothing before it: the ids of the parts, one after the other, are
  // those of the document. Parts are longer where no such place is found; some tokenizers have none (docs/tokenizers.md).
  std::vector<std::size_t> cuts(std::string_view document, std::size_t part_bytes) const;
  // Ids of document[begin, end), appended to `ids`. begin and end are 0, the size or cuts of this document.
  void encode_part(std::string_view document, std::size_t begin, std::size_t end, std::vector<std::int32_t>& ids) const;

  // Throws UserError for an id that the tokenizer does not have. Bytes that are not UTF-8 become U+FFFD.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const;

  std::int64_t vocab_size() const;                                 // every id is below it, added tokens included
  std::optional<std::int32_t> id(std::string_view token) const;    // of a token as the file spells it
  const std::string& hash() const;                                 // of the file's content, 16 hexadecimal digits: for caches

  struct Impl;

 private:
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  friend class StreamEncoder;
};

// Encodes one document that arrives in chunks of any size, keeping only the tail whose ids later text may change.
class StreamEncoder {
 public:
  explicit StreamEncoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  void push(std::string_view chunk, std::vector<std::int32_t>& ids);    // appends what no later text can change
  void finish(std::vector<std::int32_t>& ids);                          // the document ends; another may start
  std::size_t buffered_bytes() const { return buffer_.size(); }

 private:
  const Tokenizer* tokenizer_;
  std::string buffer_;
  std::size_t wanted_ = 0;    // a buffer shorter than this is not searched for a cut again
  bool started_ = false;      // buffer_ continues a document
};

}    // namespace sheaf
