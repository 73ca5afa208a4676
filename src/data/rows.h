#pragma once
// A corpus as rows of one length, and rows as batches. Everything is a pure function of (corpus, seed, step).
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/mixture.h"
#include "data/packing.h"
#include "data/permutation.h"
#include "data/tokens.h"

namespace sheaf {

inline constexpr std::int32_t kIgnoredLabel = -100;    // no prediction here; the number of PyTorch and HuggingFace

// Where one row goes: arrays of seq_len, but document_ends, which has documents() entries. labels[i] is the token after ids[i], or
// kIgnoredLabel if it does not count. The documents of a row end at document_ends, which do not fall; attention stays inside each, and what
// remains after the last is one more. Pointers may be null where the array is not wanted.
struct RowPointers {
  std::int32_t* ids = nullptr;
  std::int32_t* labels = nullptr;
  std::int32_t* positions = nullptr;
  std::int32_t* document_ends = nullptr;
};

class RowSet {
 public:
  RowSet() = default;
  RowSet(const RowSet&) = delete;
  RowSet& operator=(const RowSet&) = delete;
  virtual ~RowSet() = default;

  virtual std::int64_t count() const = 0;
  virtual std::int64_t seq_len() const = 0;
  virtual std::int64_t documents() const = 0;    // pieces of the row that has most of them; 0: concat
  virtual std::string path() const = 0;          // for errors
  virtual void fill(std::int64_t row, const RowPointers& out) const = 0;
};

// concat:     row i reads tokens [iS, iS + S) and predicts [iS + 1, iS + S + 1); documents are not looked at: one document a row.
// documents:  next-fit in order. A document of n tokens occupies n - 1 positions; one longer than a row is cut into pieces of S
//             positions and a rest, each predicting up to the token that the next one starts with; a piece is then packed like a document.
//             The rest of a row: ids 0, no predictions, a document of its own (not one of documents()).
// The label of a token that the source does not count is kIgnoredLabel.
class Rows : public RowSet {
 public:
  // Keeps a reference to the source. UserError where it does not give one row, or none with a label that counts.
  Rows(const TokenSource& source, std::int64_t seq_len, Packing packing);

  std::int64_t count() const override { return count_; }
  std::int64_t seq_len() const override { return seq_len_; }
  std::int64_t predictions() const { return predictions_; }    // of all rows: labels that count
  std::int64_t documents() const override { return documents_; }
  std::string path() const override { return source_.path(); }
  void fill(std::int64_t row, const RowPointers& out) const override;

 private:
  // A position of the packing: the piece of `document` that starts `offset` tokens into it.
  struct Place {
    std::int64_t document, offset;
  };
  void count_rows();
  void pack_documents();
  std::int64_t piece_length(const Place& place) const;                 // positions
  void step(Place& place) const;                                       // to the next piece of at least one position
  std::int64_t counted(std::int64_t begin, std::int64_t end) const;    // tokens of [begin, end) whose prediction counts
  void fill_piece(std::int64_t token, std::int64_t at, std::int64_t length, const RowPointers& out) const;

  const TokenSource& source_;
  std::int64_t seq_len_;
  Packing packing_;
  std::int64_t count_ = 0, predictions_ = 0, documents_ = 0;
  std::vector<Place> begins_;    // documents: the first piece of every row
};

// Rows [begin, end) of a set, to which it keeps a reference.
class RowRange : public RowSet {
 public:
  RowRange(const RowSet& set, std::int64_t begin, std::int64_t end) : set_(set), begin_(begin), end_(end) {}

  std::int64_t count() const override { return end_ - begin_; }
  std::int64_t seq_len() const override { return set_.seq_len(); }
  std::int64_t documents() const override { return set_.documents(); }
  std::string path() const override { return set_.path(); }
  void fill(std::int64_t row, const RowPointers& out) const override { set_.fill(begin_ + row, out); }

 private:
  const RowSet& set_;
  std::int64_t begin_, end_;
};

// The rows of several sets, one set after the other. Keeps references; all have the same seq_len and packing.
class RowUnion : public RowSet {
 public:
  explicit RowUnion(std::vector<const RowSet*> sets);

  std::int64_t count() const override { return begins_.back(); }
  std::int64_t seq_len() const override { return sets_[0]->seq_len(); }
  std::int64_t documents() const override;
  std::string path() const override;
  void fill(std::int64_t row, const RowPointers& out) const override;

  const std::vector<const RowSet*>& sets() const { return sets_; }
  std::int64_t begin(std::size_t set) const { return begins_[set]; }    // its first row here

 private:
  std::vector<const RowSet*> sets_;
  std::vector<std::int64_t> begins_ = {0};    // of sets, then the count
};

// Step s counts updates from 0, over epochs. B rows a step; the rows of an epoch that fill no step are dropped.
// Weighted: row t = sB + place of the run comes from the set that the mixture says; each set has its own epochs, every row once in each,
// and none is dropped.
class Batches {
 public:
  // Keeps a reference to the rows. UserError where they are fewer than one batch.
  Batches(const RowSet& rows, std::int64_t batch_size, bool shuffle, std::uint64_t seed);
  Batches(const RowUnion& rows, const std::vector<double>& weights, std::int64_t batch_size, bool shuffle, std::uint64_t seed);

  std::int64_t batch_size() const { return batch_size_; }
  // Of rows without weights.
  std::int64_t steps_per_epoch() const { return rows_.count() / batch_size_; }
  // The places [begin, end) in a step's batch that are micro-batch m of M; the same cut gives rank d of dp its share of a micro-batch.
  static std::pair<std::int64_t, std::int64_t> cut(std::int64_t begin, std::int64_t end, std::int64_t part, std::int64_t parts);
  // The row at a place in [0, B) of a step.
  std::int64_t row_of(std::int64_t step, std::int64_t place) const;
  // Rows of the places [begin, end), one after the other: arrays of (end - begin) × seq_len, or × documents().
  void fill(std::int64_t step, std::int64_t begin, std::int64_t end, const RowPointers& out) const;

 private:
  Permutation permutation(std::int64_t rows, std::uint64_t seed, std::int64_t epoch) const;

  const RowSet& rows_;
  const RowUnion* sets_ = nullptr;    // with a mixture only: rows_
  std::optional<Mixture> mixture_;
  std::int64_t batch_size_;
  bool shuffle_;
  std::uint64_t seed_;
};

}    // namespace sheaf
