#include "engine/row_buffers.h"

#include <algorithm>
#include <numeric>

namespace sheaf {

RowBuffers::RowBuffers(const RowSet& rows, const Executor& executor)
    : micro_batches_(executor.num_micro_batches()), seq_len_(rows.seq_len()), documents_(rows.documents()) {
  const Graph& graph = executor.graph();
  const Type& ids = graph.type(graph.find("ids"));    // [M, rows, tokens]
  all_rows_ = ids.shape[1];
  const Box box = local_box(ids.shape, ids.placement, graph.mesh, executor.rank());
  std::tie(begin_, end_) = box[1];
  std::tie(first_token_, last_token_) = box[2];
  const auto count = static_cast<std::size_t>(micro_batches_ * rows_of_micro_batch());
  for (auto* buffer : {&ids_, &labels_, &positions_}) buffer->resize(count * static_cast<std::size_t>(seq_len_));
  document_ends_.resize(count * static_cast<std::size_t>(documents_));
  clear(0);
}

void RowBuffers::fill(const Batches& batches, std::int64_t step, bool reversed) {
  for (std::int64_t m = 0; m < micro_batches_; ++m) {
    const auto [first, last] = places(m);
    const std::int64_t at = m * rows_of_micro_batch();
    if (!reversed) batches.fill(step, first, last, row(at));
    for (std::int64_t place = first; place < last && reversed; ++place) batches.fill(step, place, place + 1, row(at + last - 1 - place));
  }
}

RowPointers RowBuffers::row(std::int64_t i) {
  const std::int64_t at = i * seq_len_;
  return {ids_.data() + at, labels_.data() + at, positions_.data() + at, document_ends_.data() + i * documents_};
}

void RowBuffers::clear(std::int64_t from) {
  std::fill(ids_.begin() + from * seq_len_, ids_.end(), 0);
  std::fill(labels_.begin() + from * seq_len_, labels_.end(), kIgnoredLabel);
  for (auto at = positions_.begin() + from * seq_len_; at != positions_.end(); at += seq_len_) std::iota(at, at + seq_len_, 0);
  std::fill(document_ends_.begin() + from * documents_, document_ends_.end(), 0);
}

std::vector<std::int32_t> RowBuffers::held(const std::vector<std::int32_t>& rows) const {
  if (last_token_ - first_token_ == seq_len_) return rows;
  std::vector<std::int32_t> out;
  for (auto at = rows.begin(); at != rows.end(); at += seq_len_) out.insert(out.end(), at + first_token_, at + last_token_);
  return out;
}

void RowBuffers::give(Executor& executor) const {
  const auto write = [&](const char* name, const std::vector<std::int32_t>& data) {
    if (const Value v = executor.graph().find(name))
      executor.write(v, data.data(), static_cast<std::int64_t>(data.size() * sizeof(std::int32_t)));
  };
  write("ids", held(ids_)), write("labels", held(labels_)), write("positions", held(positions_)), write("document_ends", document_ends_);
}

}    // namespace sheaf
