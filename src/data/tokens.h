#pragma once
// A corpus as one stream of tokens, cut into documents.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

namespace sheaf {

// Immutable once open, so any number of threads may read.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  explicit TokenSource(std::string path) : path_(std::move(path)) {}
  TokenSource(const TokenSource&) = delete;
  TokenSource& operator=(const TokenSource&) = delete;

  const std::string& path() const { return path_; }                 // for errors
  virtual std::int64_t size() const = 0;                            // tokens
  virtual std::int64_t document_count() const = 0;                  // documents may be empty
  virtual std::int64_t document_begin(std::int64_t d) const = 0;    // d of 0 … document_count(): the last is size()
  // Tokens [begin, begin + out.size()), all inside the stream.
  virtual void read(std::int64_t begin, std::span<std::int32_t> out) const = 0;

 private:
  std::string path_;
};

struct TokenOptions {
  std::string tokenizer;           // data.tokenizer; "": the tokenizer of the model folder
  std::int64_t vocab = 0;          // of the model; every id is below it
  std::int32_t end_of_text = 0;    // follows every document of text; Megatron files are taken as they are
  std::string field = "text";      // of a JSONL line
};

// By the ending: .txt (one document), .jsonl (a document a line), .bin with its .idx beside it (Megatron).
// UserError that names the file for whatever is wrong with it, ids outside the vocabulary included.
std::unique_ptr<TokenSource> open_tokens(const std::string& path, const TokenOptions& options);

}    // namespace sheaf
