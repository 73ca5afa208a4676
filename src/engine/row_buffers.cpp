#include "engine/row_buffers.h"

#include <algorithm>
#include <numeric>

namespace sheaf {

RowBuffers::RowBuffers(const RowSet& rows, std::int64_t count) : count_(count), seq_len_(rows.seq_len()), documents_(rows.documents()) {
  for (auto* buffer : {&ids_, &labels_, &positions_}) buffer->resize(static_cast<std::size_t>(count * seq_len_));
  document_ends_.resize(static_cast<std::size_t>(count * documents_));
  clear(0);
}

RowPointers RowBuffers::row(std::int64_t i) {
  const std::int64_t at = i * seq_len_;
  return {ids_.data() + at, labels_.data() + at, positions_.data() + at, document_ends_.data() + i * documents_};
}

void RowBuffers::clear(std::int64_t from) {
  std::fill(ids_.begin() + from * seq_len_, ids_.end(), 0);
  std::fill(labels_.begin() + from * seq_len_, labels_.end(), kIgnoredLabel);
  for (std::int64_t i = from; i < count_; ++i) std::iota(positions_.begin() + i * seq_len_, positions_.begin() + (i + 1) * seq_len_, 0);
  std::fill(document_ends_.begin() + from * documents_, document_ends_.end(), 0);
}

void RowBuffers::give(Executor& executor) const {
  const auto write = [&](const char* name, const std::vector<std::int32_t>& data) {
    if (const Value v = executor.graph().find(name))
      executor.write(v, data.data(), static_cast<std::int64_t>(data.size() * sizeof(std::int32_t)));
  };
  write("ids", ids_), write("labels", labels_), write("positions", positions_), write("document_ends", document_ends_);
}

}    // namespace sheaf
