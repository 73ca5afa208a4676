#pragma once
// Host buffers of rows, as a graph's inputs want them: of all micro-batches of a step, the rows and tokens that this rank holds.
#include <utility>
#include <vector>

#include "data/rows.h"
#include "runtime/executor.h"

namespace sheaf {

class RowBuffers {
 public:
  // Empty rows until they are filled.
  RowBuffers(const RowSet& rows, const Executor& executor);

  std::int64_t num_micro_batches() const { return micro_batches_; }
  std::int64_t rows_of_micro_batch() const { return end_ - begin_; }    // of this rank
  // The places in a step's batch of this rank's rows of micro-batch m.
  std::pair<std::int64_t, std::int64_t> places(std::int64_t m) const { return {m * all_rows_ + begin_, m * all_rows_ + end_}; }
  // Those of a step; `reversed`: of each micro-batch the last first.
  void fill(const Batches& batches, std::int64_t step, bool reversed);
  RowPointers row(std::int64_t i);    // where its row i of all micro-batches goes, whole, those after it behind it
  void clear(std::int64_t from);      // rows from there on: nothing in them counts
  void give(Executor& executor) const;
  std::vector<std::int32_t> labels() const { return held(labels_); }    // of the tokens that this rank holds

 private:
  std::vector<std::int32_t> held(const std::vector<std::int32_t>& rows) const;

  std::int64_t micro_batches_, all_rows_, begin_ = 0, end_ = 0;    // rows of a micro-batch: all, and this rank's
  std::int64_t seq_len_, documents_, first_token_ = 0, last_token_ = 0;
  std::vector<std::int32_t> ids_, labels_, positions_, document_ends_;
};

}    // namespace sheaf
