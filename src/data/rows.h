#pragma once
// A corpus as rows of one length, and rows as batches. Everything is a pure function of (corpus, seed, step).
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "data/packing.h"
#include "data/permutation.h"
#include "data/tokens.h"

namespace sheaf {

inline constexpr std::int32_t kIgnoredLabel = -100;    // no prediction here; the number of PyTorch and HuggingFace

std::optional<Packing> packing_from_name(std::string_view name);

// Where one row goes: arrays of seq_len, but document_ends, which has documents() entries. labels[i] is the token after ids[i]. The
// documents of a row end at document_ends, which do not fall; attention stays inside each, and what remains after the last is one more.
// Pointers may be null where the array is not wanted.
struct RowPointers {
  std::int32_t* ids = nullptr;
  std::int32_t* labels = nullptr;
  std::int32_t* positions = nullptr;
  std::int32_t* document_ends = nullptr;
};

// concat:     row i reads tokens [iS, iS + S) and predicts [iS + 1, iS + S + 1); documents are not looked at: one document a row.
// documents:  next-fit in order. A document of n tokens occupies n - 1 positions; one longer than a row is cut into pieces of S
//             positions and a rest, each predicting up to the token that the next one starts with; a piece is then packed like a document.
//             The rest of a row: ids 0, no predictions, a document of its own (not one of documents()).
class Rows {
 public:
  // Keeps a reference to the source. UserError where it does not give one row.
  Rows(const TokenSource& source, std::int64_t seq_len, Packing packing);

  const TokenSource& source() const { return source_; }

  std::int64_t count() const { return count_; }
  std::int64_t seq_len() const { return seq_len_; }
  std::int64_t predictions() const { return predictions_; }    // of all rows: labels that count
  std::int64_t documents() const { return documents_; }        // pieces of the row that has most of them; 0: concat
  void fill(std::int64_t row, const RowPointers& out) const;

 private:
  // A position of the packing: the piece of `document` that starts `offset` tokens into it.
  struct Place {
    std::int64_t document, offset;
  };
  void count_rows();
  void pack_documents();
  std::int64_t piece_length(const Place& place) const;    // positions
  void step(Place& place) const;                          // to the next piece of at least one position
  void fill_piece(std::int64_t token, std::int64_t at, std::int64_t length, const RowPointers& out) const;

  const TokenSource& source_;
  std::int64_t seq_len_;
  Packing packing_;
  std::int64_t count_ = 0, predictions_ = 0, documents_ = 0;
  std::vector<Place> begins_;    // documents: the first piece of every row
};

// Step s counts updates from 0, over epochs. B rows a step; the rows of an epoch that fill no step are dropped.
class Batches {
 public:
  // Keeps a reference to the rows. UserError where they are fewer than one batch.
  Batches(const Rows& rows, std::int64_t batch_size, bool shuffle, std::uint64_t seed);

  std::int64_t batch_size() const { return batch_size_; }
  std::int64_t steps_per_epoch() const { return steps_per_epoch_; }
  std::int64_t epoch_of(std::int64_t step) const { return step / steps_per_epoch_; }
  // The places [begin, end) in a step's batch that are micro-batch m of M; the same cut gives rank d of dp its share of a micro-batch.
  static std::pair<std::int64_t, std::int64_t> cut(std::int64_t begin, std::int64_t end, std::int64_t part, std::int64_t parts);
  std::pair<std::int64_t, std::int64_t> micro_batch(std::int64_t m, std::int64_t micro_batches) const {
    return cut(0, batch_size_, m, micro_batches);
  }
  // The row at a place in [0, B) of a step.
  std::int64_t row_of(std::int64_t step, std::int64_t place) const;
  // Rows of the places [begin, end), one after the other: arrays of (end - begin) × seq_len, or × documents().
  void fill(std::int64_t step, std::int64_t begin, std::int64_t end, const RowPointers& out) const;

 private:
  Permutation permutation(std::int64_t epoch) const;

  const Rows& rows_;
  std::int64_t batch_size_, steps_per_epoch_;
  bool shuffle_;
  std::uint64_t seed_;
};

}    // namespace sheaf
