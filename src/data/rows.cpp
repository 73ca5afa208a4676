#include "data/rows.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace sheaf {

Rows::Rows(const TokenSource& source, std::int64_t seq_len, Packing packing) : source_(source), seq_len_(seq_len), packing_(packing) {
  SHEAF_CHECK(seq_len > 0, "rows of {} tokens", seq_len);
  packing == Packing::concat ? count_rows() : pack_documents();
  if (count_ == 0 && packing == Packing::concat)
    user_error("{}: corpus shorter than one row: {} tokens, a row of {} needs {}; lower data.seq_len or give more text", source.path(),
               source.size(), seq_len, seq_len + 1);
  if (count_ == 0)
    user_error("{}: corpus shorter than one row: {} documents, none of 2 tokens, and one predicts nothing", source.path(),
               source.document_count());
  if (predictions_ == 0)
    user_error("{}: no token of it counts for the loss: {} documents, and no turn of an assistant in them", source.path(),
               source.document_count());
}

void Rows::count_rows() {
  count_ = std::max<std::int64_t>(source_.size() - 1, 0) / seq_len_;
  predictions_ = counted(1, count_ * seq_len_ + 1);
}

void Rows::pack_documents() {
  std::int64_t room = 0, pieces = 0;    // positions left in the last row, and what it holds
  Place place{.document = 0, .offset = 0};
  if (place.document < source_.document_count() && piece_length(place) == 0) step(place);
  for (; place.document < source_.document_count(); step(place)) {
    const std::int64_t length = piece_length(place);
    if (length > room) {
      begins_.push_back(place);
      room = seq_len_;
      pieces = 0;
    }
    documents_ = std::max(documents_, ++pieces);
    room -= length;
    const std::int64_t token = source_.document_begin(place.document) + place.offset;
    predictions_ += counted(token + 1, token + length + 1);
  }
  count_ = std::ssize(begins_);
}

std::int64_t Rows::piece_length(const Place& place) const {
  const std::int64_t tokens = source_.document_begin(place.document + 1) - source_.document_begin(place.document);
  return std::clamp<std::int64_t>(tokens - 1 - place.offset, 0, seq_len_);
}

void Rows::step(Place& place) const {
  place.offset += seq_len_;
  while (place.document < source_.document_count() && piece_length(place) == 0) place = {.document = place.document + 1, .offset = 0};
}

std::int64_t Rows::counted(std::int64_t begin, std::int64_t end) const {
  if (!source_.masked()) return std::max<std::int64_t>(end - begin, 0);
  std::int64_t n = 0;
  for (std::int64_t token = begin; token < end; ++token) n += source_.counts(token);
  return n;
}

void Rows::fill_piece(std::int64_t token, std::int64_t at, std::int64_t length, const RowPointers& out) const {
  const auto n = static_cast<std::size_t>(length);
  if (out.ids) source_.read(token, {out.ids + at, n});
  if (out.labels && out.ids) {
    std::copy_n(out.ids + at + 1, n - 1, out.labels + at);
    source_.read(token + length, {out.labels + at + length - 1, 1});
  } else if (out.labels) {
    source_.read(token + 1, {out.labels + at, n});
  }
  if (out.labels && source_.masked())
    for (std::int64_t i = 0; i < length; ++i)
      if (!source_.counts(token + 1 + i)) out.labels[at + i] = kIgnoredLabel;
  if (out.positions) std::iota(out.positions + at, out.positions + at + length, 0);
}

void Rows::fill(std::int64_t row, const RowPointers& out) const {
  SHEAF_CHECK(row >= 0 && row < count_, "row {} of {}", row, count_);
  if (packing_ == Packing::concat) return fill_piece(row * seq_len_, 0, seq_len_, out);

  std::int64_t at = 0, document = 0;
  for (Place place = begins_[static_cast<std::size_t>(row)]; place.document < source_.document_count(); step(place), ++document) {
    const std::int64_t length = piece_length(place);
    if (length > seq_len_ - at) break;
    fill_piece(source_.document_begin(place.document) + place.offset, at, length, out);
    at += length;
    if (out.document_ends) out.document_ends[document] = static_cast<std::int32_t>(at);
  }
  const auto rest = static_cast<std::size_t>(seq_len_ - at);
  if (out.ids) std::fill_n(out.ids + at, rest, 0);
  if (out.labels) std::fill_n(out.labels + at, rest, kIgnoredLabel);
  if (out.positions) std::iota(out.positions + at, out.positions + seq_len_, 0);
  if (out.document_ends) std::fill(out.document_ends + document, out.document_ends + documents_, static_cast<std::int32_t>(at));
}

RowUnion::RowUnion(std::vector<const RowSet*> sets) : sets_(std::move(sets)) {
  SHEAF_CHECK(!sets_.empty(), "a union of no rows");
  for (const RowSet* set : sets_) begins_.push_back(begins_.back() + set->count());
}

std::int64_t RowUnion::documents() const {
  std::int64_t most = 0;
  for (const RowSet* set : sets_) most = std::max(most, set->documents());
  return most;
}

std::string RowUnion::path() const {
  return sets_.size() == 1 ? sets_[0]->path() : fmt::format("{} and {} more", sets_[0]->path(), sets_.size() - 1);
}

void RowUnion::fill(std::int64_t row, const RowPointers& out) const {
  SHEAF_CHECK(row >= 0 && row < count(), "row {} of {}", row, count());
  const auto set = static_cast<std::size_t>(std::upper_bound(begins_.begin(), begins_.end(), row) - begins_.begin() - 1);
  sets_[set]->fill(row - begins_[set], out);
  // A set with shorter lists of documents: the last one ends again and again.
  if (const std::int64_t own = sets_[set]->documents(); out.document_ends && own > 0)
    std::fill(out.document_ends + own, out.document_ends + documents(), out.document_ends[own - 1]);
}

Batches::Batches(const RowSet& rows, std::int64_t batch_size, bool shuffle, std::uint64_t seed)
    : rows_(rows), batch_size_(batch_size), shuffle_(shuffle), seed_(seed) {
  SHEAF_CHECK(batch_size > 0, "batch of {} rows", batch_size);
  if (rows.count() < batch_size)
    user_error(
        "{}: corpus shorter than one batch: {} rows of {} tokens, train_batch_size {} needs {} rows; "
        "lower train_batch_size or data.seq_len, or give more text",
        rows.path(), rows.count(), rows.seq_len(), batch_size, batch_size);
}

Batches::Batches(const RowUnion& rows, const std::vector<double>& weights, std::int64_t batch_size, bool shuffle, std::uint64_t seed)
    : rows_(rows), sets_(&rows), mixture_(weights), batch_size_(batch_size), shuffle_(shuffle), seed_(seed) {
  SHEAF_CHECK(batch_size > 0, "batch of {} rows", batch_size);
  SHEAF_CHECK(weights.size() == rows.sets().size(), "{} weights of {} sets of rows", weights.size(), rows.sets().size());
}

// Floor splitting, as for pieces of tensors.
std::pair<std::int64_t, std::int64_t> Batches::cut(std::int64_t begin, std::int64_t end, std::int64_t part, std::int64_t parts) {
  SHEAF_CHECK(part >= 0 && part < parts && begin <= end, "part {} of {} of [{}, {})", part, parts, begin, end);
  return {begin + part * (end - begin) / parts, begin + (part + 1) * (end - begin) / parts};
}

Permutation Batches::permutation(std::int64_t rows, std::uint64_t seed, std::int64_t epoch) const {
  return shuffle_ ? Permutation(rows, seed, static_cast<std::uint64_t>(epoch)) : Permutation::identity(rows);
}

std::int64_t Batches::row_of(std::int64_t step, std::int64_t place) const {
  SHEAF_CHECK(step >= 0 && place >= 0 && place < batch_size_, "place {} of step {}", place, step);
  if (!mixture_) {
    const std::int64_t steps = steps_per_epoch();
    return permutation(rows_.count(), seed_, step / steps)(step % steps * batch_size_ + place);
  }
  const Mixture::Place at = mixture_->at(step * batch_size_ + place);
  const std::int64_t rows = sets_->sets()[at.source]->count();
  // Sets of one size must not walk in step: each has a seed of its own, the first one the run's.
  const std::uint64_t seed = seed_ + at.source * 0x9e3779b97f4a7c15u;
  return sets_->begin(at.source) + permutation(rows, seed, at.ordinal / rows)(at.ordinal % rows);
}

void Batches::fill(std::int64_t step, std::int64_t begin, std::int64_t end, const RowPointers& out) const {
  const std::int64_t n = rows_.seq_len(), documents = rows_.documents();
  for (std::int64_t place = begin; place < end; ++place) {
    const auto at = [&](std::int32_t* array, std::int64_t row) { return array ? array + (place - begin) * row : nullptr; };
    rows_.fill(row_of(step, place), {at(out.ids, n), at(out.labels, n), at(out.positions, n), at(out.document_ends, documents)});
  }
}

}    // namespace sheaf
