#include "data/permutation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>
#include <vector>

using namespace sheaf;

namespace {

std::vector<std::int64_t> order(const Permutation& permutation) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(permutation.size()));
  for (std::int64_t i = 0; i < permutation.size(); ++i) out[static_cast<std::size_t>(i)] = permutation(i);
  return out;
}

// Pearson's statistic of counts that should be equal; of k counts, mean k - 1 and variance 2(k - 1).
double chi_square(const std::vector<int>& counts) {
  double total = 0, sum = 0;
  for (const int count : counts) total += count;
  const double wanted = total / static_cast<double>(counts.size());
  for (const int count : counts) sum += (count - wanted) * (count - wanted) / wanted;
  return sum;
}
double bound(double cells) { return cells - 1 + 6 * std::sqrt(2 * (cells - 1)); }    // six sigma

}    // namespace

TEST(Permutation, is_a_bijection_for_every_n_to_300) {
  for (std::int64_t n = 1; n <= 300; ++n)
    for (const std::uint64_t seed : {0u, 1u, 77u}) {
      std::set<std::int64_t> seen;
      for (const std::int64_t row : order(Permutation(n, seed, 3))) {
        ASSERT_GE(row, 0);
        ASSERT_LT(row, n);
        seen.insert(row);
      }
      ASSERT_EQ(std::ssize(seen), n) << n;
    }
}
TEST(Permutation, large_ones_stay_inside_and_hit_nothing_twice) {
  std::mt19937_64 random(5);
  for (const std::int64_t n : {std::int64_t{1'000'003}, std::int64_t{1} << 32, (std::int64_t{1} << 40) + 1, std::int64_t{1} << 62}) {
    const Permutation permutation(n, 9, 1);
    std::set<std::int64_t> positions, rows;
    for (int i = 0; i < 20'000; ++i) positions.insert(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n)));
    for (const std::int64_t position : positions) {
      const std::int64_t row = permutation(position);
      ASSERT_TRUE(row >= 0 && row < n);
      rows.insert(row);
    }
    EXPECT_EQ(rows.size(), positions.size()) << n;
  }
}
TEST(Permutation, seed_and_epoch_change_it_and_nothing_else_does) {
  EXPECT_EQ(order(Permutation(100, 1, 0)), order(Permutation(100, 1, 0)));
  EXPECT_NE(order(Permutation(100, 1, 0)), order(Permutation(100, 2, 0)));
  EXPECT_NE(order(Permutation(100, 1, 0)), order(Permutation(100, 1, 1)));
  EXPECT_NE(order(Permutation(100, 1, 2)), order(Permutation(100, 2, 1)));
  EXPECT_NE(order(Permutation(100, 0, 1)), order(Permutation(100, 1, 0)));
}
// Values of the same in Python, where integers do not wrap by themselves.
TEST(Permutation, its_values_are_fixed_for_ever) {
  EXPECT_EQ(order(Permutation(10, 1, 0)), (std::vector<std::int64_t>{1, 4, 6, 5, 9, 3, 8, 0, 7, 2}));
  EXPECT_EQ(Permutation(1'000'000'007, 1234, 5)(42), 990379121);
}
TEST(Permutation, identity_keeps_the_order) {
  for (std::int64_t i = 0; i < 5; ++i) EXPECT_EQ(Permutation::identity(5)(i), i);
}
TEST(Permutation, over_seeds_every_position_goes_everywhere_equally_often) {
  for (const std::int64_t n : {2, 3, 7, 16, 33}) {
    for (const std::int64_t position : {std::int64_t{0}, n / 2, n - 1}) {
      std::vector<int> counts(static_cast<std::size_t>(n));
      for (std::uint64_t seed = 0; seed < 5000; ++seed) ++counts[static_cast<std::size_t>(Permutation(n, seed, 0)(position))];
      EXPECT_LT(chi_square(counts), bound(static_cast<double>(n))) << n << " " << position;
    }
  }
}
TEST(Permutation, neighbours_of_one_order_are_as_good_as_independent) {
  constexpr std::int64_t kRows = 100'000, kCells = 10;
  const Permutation permutation(kRows, 3, 0);
  std::vector<int> pairs(kCells * kCells);
  for (std::int64_t i = 0; i + 1 < kRows; ++i)
    ++pairs[static_cast<std::size_t>(permutation(i) * kCells / kRows * kCells + permutation(i + 1) * kCells / kRows)];
  EXPECT_LT(chi_square(pairs), bound(kCells * kCells));
}
TEST(Permutation, epochs_of_one_seed_are_as_good_as_independent) {
  constexpr std::int64_t kRows = 50;
  std::vector<int> pairs(kRows * kRows);
  for (std::uint64_t epoch = 0; epoch < 4000; ++epoch) {
    const Permutation now(kRows, 3, epoch), next(kRows, 3, epoch + 1);
    for (std::int64_t i = 0; i < kRows; ++i) ++pairs[static_cast<std::size_t>(now(i) * kRows + next(i))];
  }
  EXPECT_LT(chi_square(pairs), bound(kRows * kRows));
}
