#include "data/mixture.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "data/rows.h"
#include "support/files.h"

using namespace sheaf;

namespace {

// Rows that are numbered: row r of set s has the id 1000 s + r everywhere.
class NumberedRows : public RowSet {
 public:
  NumberedRows(std::int32_t set, std::int64_t count) : set_(set), count_(count) {}
  std::int64_t count() const override { return count_; }
  std::int64_t seq_len() const override { return 2; }
  std::int64_t documents() const override { return set_; }
  std::string path() const override { return fmt::format("set{}.txt", set_); }
  void fill(std::int64_t row, const RowPointers& out) const override {
    ASSERT_TRUE(row >= 0 && row < count_);
    if (out.ids) std::fill_n(out.ids, 2, 1000 * set_ + static_cast<std::int32_t>(row));
    if (out.document_ends) std::fill_n(out.document_ends, set_, 1 + set_);
  }

 private:
  std::int32_t set_;
  std::int64_t count_;
};

// The largest |rows of a source - its share x t| over all sources and all t up to n; checks the ordinals on the way.
double largest_error(const Mixture& mixture, const std::vector<double>& shares, std::int64_t n) {
  std::vector<std::int64_t> given(shares.size(), 0);
  double worst = 0;
  for (std::int64_t t = 0; t < n; ++t) {
    const auto [source, ordinal] = mixture.at(t);
    EXPECT_EQ(ordinal, given[source]++) << t;
    for (std::size_t i = 0; i < shares.size(); ++i)
      worst = std::max(worst, std::abs(static_cast<double>(given[i]) - shares[i] * static_cast<double>(t + 1)));
  }
  return worst;
}

}    // namespace

TEST(Mixture, every_prefix_has_the_shares_to_less_than_a_row) {
  const std::vector<std::vector<double>> cases = {{1},          {1, 1},           {0.7, 0.3}, {0.5, 0.3, 0.2},    {3, 2, 2},
                                                  {100, 1, 1},  {1, 2, 4, 8, 16}, {97, 89},   {0.125, 0.5, 1, 7}, {1, 1, 1, 1, 1, 1, 1, 50},
                                                  {0.9, 0.1, 4}};
  for (const auto& weights : cases) {
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<double> shares;
    for (const double weight : weights) shares.push_back(weight / total);
    // 1e-9: of the sum in double that it is compared with.
    EXPECT_LT(largest_error(Mixture(weights), shares, 2000), 1 - 1e-9) << testing::PrintToString(weights);
  }
}
TEST(Mixture, random_weights_too) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<double> weights;
    for (std::size_t k = 2 + random() % 8; k > 0; --k) weights.push_back(1 + random() % 60);
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<double> shares;
    for (const double weight : weights) shares.push_back(weight / total);
    ASSERT_LT(largest_error(Mixture(weights), shares, 1000), 1 - 1e-9) << testing::PrintToString(weights);
  }
}
TEST(Mixture, shares_without_a_short_period_are_rounded_to_a_millionth) {
  const std::vector<double> weights = {1.0 / 3, std::sqrt(2.0), 1e-9};
  const Mixture mixture(weights);
  const double total = weights[0] + weights[1] + weights[2];
  // 2 / period: the rounding, and what the smallest is raised by.
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(mixture.share(i), weights[i] / total, 2.0 / Mixture::kLongestPeriod);
  EXPECT_GT(mixture.share(2), 0);
  EXPECT_LT(largest_error(mixture, {mixture.share(0), mixture.share(1), mixture.share(2)}, 3000), 1 - 1e-9);
}
TEST(Mixture, far_positions_cost_what_near_ones_do) {
  const Mixture mixture({0.7, 0.2, 0.1});
  const auto far = mixture.at(std::int64_t{10} * 1'000'000'000'000 + 3), near = mixture.at(3);
  EXPECT_EQ(far.source, near.source);
  EXPECT_EQ(far.ordinal, near.ordinal + (far.source == 0 ? 7 : far.source == 1 ? 2 : 1) * std::int64_t{1'000'000'000'000});
}

TEST(WeightedBatches, every_set_has_its_own_epochs_and_every_row_once_in_each) {
  const NumberedRows a(0, 7), b(1, 20);
  const RowUnion both({&a, &b});
  const Batches batches(both, {0.5, 0.5}, 4, true, 11);
  std::vector<std::vector<std::int64_t>> seen(2);
  for (std::int64_t step = 0; step < 70; ++step)
    for (std::int64_t place = 0; place < 4; ++place) {
      const std::int64_t row = batches.row_of(step, place);
      seen[row >= 7].push_back(row);
    }
  EXPECT_EQ(seen[0].size(), 140u);
  for (const auto& [rows, first, count] : {std::tuple{&seen[0], 0, 7}, {&seen[1], 7, 20}})
    for (std::size_t epoch = 0; epoch < rows->size() / static_cast<std::size_t>(count); ++epoch) {
      const auto begin = rows->begin() + static_cast<std::ptrdiff_t>(epoch) * count;
      const std::set<std::int64_t> once(begin, begin + count);
      EXPECT_EQ(std::ssize(once), count);
      EXPECT_EQ(*once.begin(), first);
    }
  EXPECT_FALSE(std::equal(seen[0].begin(), seen[0].begin() + 7, seen[0].begin() + 7));    // another order in the next epoch
}
TEST(WeightedBatches, are_a_function_of_seed_and_place_and_of_nothing_else) {
  const NumberedRows a(0, 7), b(1, 20), c(2, 3);
  const RowUnion all({&a, &b, &c});
  const Batches small(all, {5, 3, 2}, 4, true, 11), large(all, {5, 3, 2}, 12, true, 11), other(all, {5, 3, 2}, 12, true, 12);
  std::vector<std::int64_t> by_small, by_large, by_other;
  for (std::int64_t t = 0; t < 240; ++t) {
    by_small.push_back(small.row_of(t / 4, t % 4));
    by_large.push_back(large.row_of(t / 12, t % 12));
    by_other.push_back(other.row_of(t / 12, t % 12));
  }
  EXPECT_EQ(by_small, by_large);
  EXPECT_NE(by_small, by_other);
  // The parts that ranks take are the rows of the whole.
  std::vector<std::int32_t> whole(24), parts(24);
  large.fill(9, 0, 12, {.ids = whole.data()});
  for (std::int64_t rank = 0; rank < 5; ++rank) {
    const auto [begin, end] = Batches::cut(0, 12, rank, 5);
    large.fill(9, begin, end, {.ids = parts.data() + 2 * begin});
  }
  EXPECT_EQ(parts, whole);
}
TEST(WeightedBatches, sets_of_one_size_are_not_shuffled_alike) {
  const NumberedRows a(0, 30), b(1, 30);
  const RowUnion both({&a, &b});
  const Batches batches(both, {1, 1}, 2, true, 5);
  int alike = 0;
  for (std::int64_t step = 0; step < 30; ++step) alike += std::abs(batches.row_of(step, 0) - batches.row_of(step, 1)) == 30;
  EXPECT_LT(alike, 10);
}
TEST(WeightedBatches, unshuffled_rows_come_in_order) {
  const NumberedRows a(0, 2), b(1, 3);
  const RowUnion both({&a, &b});
  const Batches batches(both, {1, 1}, 4, false, 5);
  std::vector<std::int64_t> first, second;
  for (std::int64_t t = 0; t < 12; ++t) (batches.row_of(t / 4, t % 4) < 2 ? first : second).push_back(batches.row_of(t / 4, t % 4));
  EXPECT_EQ(first, (std::vector<std::int64_t>{0, 1, 0, 1, 0, 1}));
  EXPECT_EQ(second, (std::vector<std::int64_t>{2, 3, 4, 2, 3, 4}));
}
TEST(RowUnion, lists_of_documents_are_as_long_as_the_longest) {
  const NumberedRows a(1, 2), b(3, 2);
  const RowUnion both({&a, &b});
  EXPECT_EQ(both.documents(), 3);
  std::vector<std::int32_t> ends(3, -1);
  both.fill(0, {.document_ends = ends.data()});
  EXPECT_EQ(ends, (std::vector<std::int32_t>{2, 2, 2}));
  both.fill(2, {.document_ends = ends.data()});
  EXPECT_EQ(ends, (std::vector<std::int32_t>{4, 4, 4}));
}
TEST(RowUnion, without_weights_is_one_set_and_one_permutation) {
  const NumberedRows a(0, 7), b(1, 20);
  const RowUnion both({&a, &b});
  EXPECT_EQ(both.count(), 27);
  std::vector<std::int32_t> ids(2);
  both.fill(6, {.ids = ids.data()});
  EXPECT_EQ(ids[0], 6);
  both.fill(7, {.ids = ids.data()});
  EXPECT_EQ(ids[0], 1000);
  const Batches batches(both, 27, true, 3);
  std::set<std::int64_t> rows;
  for (std::int64_t place = 0; place < 27; ++place) rows.insert(batches.row_of(1, place));
  EXPECT_EQ(rows.size(), 27u);
  EXPECT_USER_ERROR(Batches(both, 28, true, 3), "set0.txt and 1 more: corpus shorter than one batch");
}
