#pragma once
// A corpus as one stream of tokens, cut into documents.
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
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
  // Whether predicting a token counts for the loss. masked(): some may not; else all do.
  virtual bool masked() const { return false; }
  virtual bool counts(std::int64_t /*token*/) const { return true; }

 private:
  std::string path_;
};

struct TokenOptions {
  std::string tokenizer;                      // data.tokenizer: "bytes", a tokenizer.json, or "": that of the model folder
  std::string model_folder;                   // its tokenizer.json and chat template; "": there is none
  std::int64_t vocab = 0;                     // of the model; every id is below it
  std::optional<std::int64_t> end_of_text;    // eos_token_id of config.json; follows every document of text. Megatron files have their own
  std::string field;                          // of a JSONL line; "": text, or messages
  int threads = 1;                            // that encode
  std::string cache;                          // folder for tokens of text; "": they are kept in memory
  const std::atomic<bool>* stop = nullptr;    // ends tokenizing by throwing Interrupted (data/tokenize.h)
  std::function<void(const std::string&)> say = {};               // lines for the user
  std::function<void(const struct TextProgress&)> report = {};    // while tokenizing
};

// By the ending: .txt (one document), .jsonl (a document a line), both also with .gz or .zst behind; a folder of such; .bin with its
// .idx beside it (Megatron). Text is tokenized once: its tokens are kept in `cache` under a hash of the file, the tokenizer and the
// options, and read from there from then on; any number of runs may do that at once. Plain .txt as bytes needs no copy and is mapped.
// UserError that names the file for whatever is wrong with it, ids outside the vocabulary included.
std::unique_ptr<TokenSource> open_tokens(const std::string& path, const TokenOptions& options);

}    // namespace sheaf
