#pragma once
// Host buffers of rows, as a graph's inputs want them.
#include <vector>

#include "data/rows.h"
#include "runtime/executor.h"

namespace sheaf {

class RowBuffers {
 public:
  // Sized for `count` rows of the set; empty rows until they are filled.
  RowBuffers(const RowSet& rows, std::int64_t count);

  RowPointers row(std::int64_t i);    // where row i goes, those after it behind it
  void clear(std::int64_t from);      // rows [from, count): nothing in them counts
  void give(Executor& executor) const;
  const std::vector<std::int32_t>& labels() const { return labels_; }

 private:
  std::int64_t count_, seq_len_, documents_;
  std::vector<std::int32_t> ids_, labels_, positions_, document_ends_;
};

}    // namespace sheaf
