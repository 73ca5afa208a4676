#include "data/rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "support/files.h"

using namespace sheaf;

namespace {

using Ints = std::vector<std::int32_t>;

// Documents of the given lengths. Token t of the stream is 100 + t, so that a number says where it comes from.
class CountingSource : public TokenSource {
 public:
  explicit CountingSource(const std::vector<std::int64_t>& lengths) : TokenSource("corpus.txt") {
    for (const std::int64_t length : lengths) begins_.push_back(begins_.back() + length);
  }
  std::int64_t size() const override { return begins_.back(); }
  std::int64_t document_count() const override { return std::ssize(begins_) - 1; }
  std::int64_t document_begin(std::int64_t d) const override { return begins_[static_cast<std::size_t>(d)]; }
  void read(std::int64_t begin, std::span<std::int32_t> out) const override {
    ASSERT_TRUE(begin >= 0 && begin + std::ssize(out) <= size());
    std::iota(out.begin(), out.end(), static_cast<std::int32_t>(100 + begin));
  }

 private:
  std::vector<std::int64_t> begins_ = {0};
};

struct Row {
  Ints ids, labels, positions, ends;
  Row(std::size_t n, std::size_t documents) : ids(n, -1), labels(n, -1), positions(n, -1), ends(documents, -1) {}
  RowPointers pointers() { return {ids.data(), labels.data(), positions.data(), ends.data()}; }
};
Row row_of(const Rows& rows, std::int64_t i) {
  Row row(static_cast<std::size_t>(rows.seq_len()), static_cast<std::size_t>(rows.documents()));
  rows.fill(i, row.pointers());
  return row;
}
constexpr std::int32_t kNo = kIgnoredLabel;

}    // namespace

TEST(ConcatRows, read_S_tokens_and_predict_the_next_ones) {
  const CountingSource source({3, 7});
  const Rows rows(source, 3, Packing::concat);
  ASSERT_EQ(rows.count(), 3);    // floor((10 - 1) / 3)
  EXPECT_EQ(rows.predictions(), 9);
  const Row row = row_of(rows, 2);
  EXPECT_EQ(row.ids, (Ints{106, 107, 108}));
  EXPECT_EQ(row.labels, (Ints{107, 108, 109}));
  EXPECT_EQ(row.positions, (Ints{0, 1, 2}));
  EXPECT_EQ(rows.documents(), 0);
}
TEST(ConcatRows, n_tokens_give_the_floor_of_n_minus_1_over_S_rows) {
  for (const auto& [n, count] : {std::pair{4, 1}, {5, 1}, {6, 1}, {7, 2}, {9, 2}, {10, 3}}) {
    const CountingSource source({n});
    EXPECT_EQ(Rows(source, 3, Packing::concat).count(), count) << n;
  }
}

TEST(DocumentRows, are_filled_by_next_fit_in_order) {
  // Positions: 2, 3, none, none, 1, 5. The rows: 2 + 3 | 1 and a rest, as 5 does not fit | 5, exactly.
  const CountingSource source({3, 4, 1, 0, 2, 6});
  const Rows rows(source, 5, Packing::documents);
  ASSERT_EQ(rows.count(), 3);
  EXPECT_EQ(rows.predictions(), 11);

  Row row = row_of(rows, 0);
  EXPECT_EQ(row.ids, (Ints{100, 101, 103, 104, 105}));
  EXPECT_EQ(row.labels, (Ints{101, 102, 104, 105, 106}));
  EXPECT_EQ(row.positions, (Ints{0, 1, 0, 1, 2}));
  EXPECT_EQ(rows.documents(), 2);
  EXPECT_EQ(row.ends, (Ints{2, 5}));

  row = row_of(rows, 1);
  EXPECT_EQ(row.ids, (Ints{108, 0, 0, 0, 0}));
  EXPECT_EQ(row.labels, (Ints{109, kNo, kNo, kNo, kNo}));
  EXPECT_EQ(row.positions, (Ints{0, 0, 1, 2, 3}));
  EXPECT_EQ(row.ends, (Ints{1, 1}));

  row = row_of(rows, 2);
  EXPECT_EQ(row.ids, (Ints{110, 111, 112, 113, 114}));
  EXPECT_EQ(row.labels, (Ints{111, 112, 113, 114, 115}));
  EXPECT_EQ(row.ends, (Ints{5, 5}));
}
TEST(DocumentRows, a_document_longer_than_a_row_is_cut_into_pieces_that_share_a_token) {
  // 2 tokens; then 10, so 9 positions: pieces of 4, 4 and 1; the last shares its row with the next document.
  const CountingSource source({2, 10, 3});
  const Rows rows(source, 4, Packing::documents);
  ASSERT_EQ(rows.count(), 4);
  EXPECT_EQ(rows.predictions(), 1 + 9 + 2);
  EXPECT_EQ(row_of(rows, 0).labels, (Ints{101, kNo, kNo, kNo}));
  EXPECT_EQ(row_of(rows, 1).ids, (Ints{102, 103, 104, 105}));
  EXPECT_EQ(row_of(rows, 1).labels, (Ints{103, 104, 105, 106}));
  EXPECT_EQ(row_of(rows, 2).ids, (Ints{106, 107, 108, 109}));
  EXPECT_EQ(row_of(rows, 2).labels, (Ints{107, 108, 109, 110}));
  EXPECT_EQ(row_of(rows, 2).positions, (Ints{0, 1, 2, 3}));
  const Row last = row_of(rows, 3);
  EXPECT_EQ(last.ids, (Ints{110, 112, 113, 0}));
  EXPECT_EQ(last.labels, (Ints{111, 113, 114, kNo}));
  EXPECT_EQ(last.positions, (Ints{0, 0, 1, 0}));
  EXPECT_EQ(last.ends, (Ints{1, 3}));
}
TEST(DocumentRows, a_document_of_a_multiple_of_S_positions_leaves_no_empty_piece) {
  const CountingSource source({9, 3});
  const Rows rows(source, 4, Packing::documents);
  EXPECT_EQ(rows.count(), 3);
  EXPECT_EQ(row_of(rows, 2).labels, (Ints{110, 111, kNo, kNo}));
}
TEST(DocumentRows, every_prediction_inside_a_document_is_made_exactly_once) {
  const std::vector<std::int64_t> lengths = {0, 1, 5, 17, 2, 2, 0, 33, 8, 9, 1, 1, 3, 64, 65, 4};
  for (const std::int64_t seq_len : {1, 2, 3, 7, 8, 16, 100}) {
    const CountingSource source(lengths);
    const Rows rows(source, seq_len, Packing::documents);
    std::set<std::pair<int, int>> made;
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < rows.count(); ++i) {
      const Row row = row_of(rows, i);
      EXPECT_NE(row.labels[0], kNo);    // no row is empty
      for (std::size_t at = 0; at < row.ids.size(); ++at)
        if (row.labels[at] != kNo) ++count, made.insert({row.ids[at], row.labels[at]});
    }
    std::set<std::pair<int, int>> wanted;
    for (std::int64_t d = 0; d < source.document_count(); ++d)
      for (std::int64_t t = source.document_begin(d); t + 1 < source.document_begin(d + 1); ++t) wanted.insert({100 + t, 101 + t});
    EXPECT_EQ(made, wanted) << seq_len;
    EXPECT_EQ(count, std::ssize(wanted)) << seq_len;
    EXPECT_EQ(rows.predictions(), count) << seq_len;
  }
}
TEST(Rows, arrays_that_are_not_wanted_are_left_out) {
  const CountingSource source({3, 4});
  const Rows rows(source, 5, Packing::documents);
  Ints labels(5);
  rows.fill(0, {.labels = labels.data()});
  EXPECT_EQ(labels, row_of(rows, 0).labels);
}

TEST(Batches, a_step_takes_the_next_rows_of_its_epoch_and_the_rest_is_dropped) {
  const CountingSource source({23});    // 11 rows of 2; 3 steps of 3
  const Rows rows(source, 2, Packing::concat);
  const Batches batches(rows, 3, false, 1);
  EXPECT_EQ(batches.steps_per_epoch(), 3);
  EXPECT_EQ(batches.row_of(2, 2), 8);
  EXPECT_EQ(batches.row_of(3, 0), 0);    // the next epoch; rows 9 and 10 were dropped
}
TEST(Batches, shuffled_rows_are_the_permutation_of_seed_and_epoch) {
  const CountingSource source({201});
  const Rows rows(source, 2, Packing::concat);
  const Batches batches(rows, 30, true, 7);
  std::set<std::int64_t> seen;
  for (std::int64_t step = 3; step < 6; ++step)
    for (std::int64_t place = 0; place < 30; ++place) {
      EXPECT_EQ(batches.row_of(step, place), Permutation(100, 7, 1)((step - 3) * 30 + place));
      seen.insert(batches.row_of(step, place));
    }
  EXPECT_EQ(seen.size(), 90u);
}
TEST(Batches, micro_batches_and_ranks_cut_by_floor_and_hold_the_same_rows) {
  const CountingSource source({101});
  const Rows rows(source, 2, Packing::concat);
  const Batches batches(rows, 7, true, 3);
  Row whole(14, 0);
  batches.fill(4, 0, 7, whole.pointers());
  EXPECT_EQ(Batches::cut(0, 7, 0, 3), (std::pair<std::int64_t, std::int64_t>{0, 2}));
  EXPECT_EQ(Batches::cut(0, 7, 1, 3), (std::pair<std::int64_t, std::int64_t>{2, 4}));
  EXPECT_EQ(Batches::cut(0, 7, 2, 3), (std::pair<std::int64_t, std::int64_t>{4, 7}));
  Ints ids, labels;
  for (std::int64_t m = 0; m < 3; ++m)
    for (std::int64_t rank = 0; rank < 2; ++rank) {
      const auto [begin, end] = Batches::cut(0, 7, m, 3);
      const auto [first, last] = Batches::cut(begin, end, rank, 2);
      Row part(static_cast<std::size_t>(2 * (last - first)), 0);
      batches.fill(4, first, last, part.pointers());
      ids.insert(ids.end(), part.ids.begin(), part.ids.end());
      labels.insert(labels.end(), part.labels.begin(), part.labels.end());
    }
  EXPECT_EQ(ids, whole.ids);
  EXPECT_EQ(labels, whole.labels);
  EXPECT_EQ(whole.ids[0], 100 + 2 * batches.row_of(4, 0));
}

TEST(RowsErrors, a_corpus_shorter_than_one_row) {
  const CountingSource four({4}), ones({1, 0, 1});
  EXPECT_USER_ERROR(Rows(four, 4, Packing::concat),
                    "corpus.txt: corpus shorter than one row: 4 tokens, a row of 4 needs 5; lower data.seq_len");
  EXPECT_USER_ERROR(Rows(ones, 4, Packing::documents), "corpus.txt: corpus shorter than one row: 3 documents");
  EXPECT_EQ(Rows(four, 4, Packing::documents).count(), 1);
  EXPECT_EQ(Rows(four, 3, Packing::concat).count(), 1);
}
TEST(RowsErrors, a_corpus_shorter_than_one_batch) {
  const CountingSource source({10});
  const Rows rows(source, 3, Packing::concat);
  EXPECT_USER_ERROR(Batches(rows, 4, true, 1),
                    "corpus.txt: corpus shorter than one batch: 3 rows of 3 tokens, train_batch_size 4 needs 4 rows; lower ",
                    "or give more text");
  EXPECT_EQ(Batches(rows, 3, true, 1).steps_per_epoch(), 1);
}
