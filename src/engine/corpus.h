#pragma once
// The files that a run reads, as rows: opened, tokenized where they are text, mixed.
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/corpus_file.h"
#include "data/rows.h"

namespace sheaf {

struct CorpusOptions {
  std::int64_t seq_len = 0;
  Packing packing = Packing::concat;
  std::string tokenizer;                      // data.tokenizer
  std::string field;                          // data.field
  std::string model_folder;                   // "": from scratch
  std::int64_t vocab = 0;                     // of the model
  std::optional<std::int64_t> end_of_text;    // eos_token_id of config.json
  std::string cache;                          // folder for the tokens of text; "": they are kept in memory
  double held_out = 0;                        // share of every file's rows, its last ones, that are not trained on
  const std::atomic<bool>* stop = nullptr;    // ends tokenizing by throwing Interrupted (data/tokenize.h)
  std::function<void(const std::string&)> say = {};
};

// The folder beside a run's output where tokens of text are kept: OUTPUT/../.sheaf_cache.
std::string default_cache(const std::string& output);

class Corpus {
 public:
  // UserError: whatever is wrong with a file, and a corpus shorter than one row.
  Corpus(const std::vector<CorpusFile>& files, const CorpusOptions& options);

  const RowSet& rows() const { return *union_; }                // without those held out
  const RowSet* held_out() const { return held_out_.get(); }    // nullptr: none
  // In the order of the run: UserError where rows without weights are fewer than one batch.
  std::unique_ptr<Batches> batches(std::int64_t batch_size, bool shuffle, std::uint64_t seed) const;
  // What decides the rows, for resume: rows and tokens of every file, and its weight. Not where it lies.
  Json identity() const;
  // Of a corpus of several files: a line for each, with its share and how often `rows` rows of the run go through it.
  std::vector<std::string> description(std::int64_t rows) const;

 private:
  bool weighted() const { return files_[0].weight > 0; }

  std::vector<CorpusFile> files_;
  std::vector<std::unique_ptr<TokenSource>> sources_;
  std::vector<std::unique_ptr<Rows>> rows_;
  std::vector<std::unique_ptr<RowRange>> ranges_;    // trained on, and held out if any
  std::unique_ptr<RowUnion> union_, held_out_;
};

}    // namespace sheaf
