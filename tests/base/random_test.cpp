#include "base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/text.h"

using namespace sheaf;

// The vectors published with the generator (Random123, kat_vectors).
TEST(Random, philox_gives_the_published_vectors) {
  using W = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (W{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (W{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (W{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, a_range_may_be_filled_in_any_pieces) {
  const std::uint64_t stream = hash_text("model.norm.weight"), far = (1ull << 40) + 3;
  std::vector<float> whole(101), pieces(101);
  fill_normal(whole, 7, stream, far, 0.5, 0.02);
  for (std::size_t begin = 0, size = 1; begin < pieces.size(); begin += size, size = size % 7 + 1)
    fill_normal(std::span(pieces).subspan(begin, std::min(size, pieces.size() - begin)), 7, stream, far + begin, 0.5, 0.02);
  EXPECT_EQ(whole, pieces);
  for (std::size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(whole[i], static_cast<float>(0.5 + 0.02 * normal(7, stream, far + i)));
}

TEST(Random, threads_that_share_a_long_range_change_nothing) {
  std::vector<float> whole((3 << 18) + 5), pieces(whole.size());
  fill_normal(whole, 7, 11, 3, 0.5, 0.02);
  for (std::size_t begin = 0, size = 100'001; begin < pieces.size(); begin += size)    // each for one thread
    fill_normal(std::span(pieces).subspan(begin, std::min(size, pieces.size() - begin)), 7, 11, 3 + begin, 0.5, 0.02);
  EXPECT_EQ(whole, pieces);
}

TEST(Random, seed_stream_and_index_all_matter) {
  const double x = normal(1, 2, 3);
  EXPECT_NE(x, normal(2, 2, 3));
  EXPECT_NE(x, normal(1, 3, 3));
  EXPECT_NE(x, normal(1, 2, 4));
  EXPECT_NE(x, normal(1ull << 32 | 1, 2, 3));
  EXPECT_NE(x, normal(1, 2, (4ull << 32) + 3));
}

// n = 2^20: a mean of n standard normals is 0 +- 1e-3, their variance 1 +- 1.4e-3, the fourth moment 3 +- 1e-2; five sigma are allowed.
TEST(Random, moments_are_those_of_the_distributions) {
  const int n = 1 << 20;
  double sum = 0, square = 0, fourth = 0, neighbours = 0, flat = 0, previous = 0;
  for (int i = 0; i < n; ++i) {
    const double x = normal(1, 2, static_cast<std::uint64_t>(i)), u = uniform(1, 2, static_cast<std::uint64_t>(i));
    sum += x, square += x * x, fourth += x * x * x * x, neighbours += x * previous, flat += u;
    previous = x;
    ASSERT_TRUE(u > 0 && u < 1 && std::isfinite(x));
  }
  EXPECT_NEAR(sum / n, 0, 5e-3);
  EXPECT_NEAR(square / n, 1, 7e-3);
  EXPECT_NEAR(fourth / n, 3, 5e-2);
  EXPECT_NEAR(neighbours / n, 0, 5e-3);
  EXPECT_NEAR(flat / n, 0.5, 1.5e-3);
}
