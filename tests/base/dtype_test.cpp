#include "base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

using namespace sheaf;

static std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }
static float of_high(SplitFloat parts) { return join_float({parts.high, 0}); }

TEST(SplitFloat, is_the_number_bit_for_bit) {
  std::mt19937 random(1);
  for (std::uint32_t upper = 0; upper < 0x10000u; ++upper)
    for (const std::uint32_t lower : {0x0u, 0x1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu, static_cast<std::uint32_t>(random() & 0xffffu)}) {
      const auto x = std::bit_cast<float>(upper << 16 | lower);
      const SplitFloat parts = split_float(x);
      if (std::isnan(x)) {
        EXPECT_TRUE(std::isnan(join_float(parts)) && std::isnan(of_high(parts))) << std::hex << bits(x);
        EXPECT_EQ(std::signbit(of_high(parts)), std::signbit(x));
        continue;
      }
      EXPECT_EQ(bits(join_float(parts)), bits(x)) << std::hex << bits(x);
      // The nearest bf16: no further than half of what lies between two of them. In doubles, where Inf is the next power of two.
      const double step = std::ldexp(1.0, std::max(std::ilogb(x == 0 ? 1e-45f : x), -126) - 7);
      if (std::isfinite(x) && std::isfinite(of_high(parts))) {
        EXPECT_LE(std::abs(double{of_high(parts)} - double{x}), step / 2) << std::hex << bits(x);
      }
      if (lower == 0x8000u && std::isfinite(of_high(parts))) {    // a tie
        EXPECT_GT(std::abs(of_high(parts)), std::abs(x)) << std::hex << bits(x);
      }
      // To nearest even, the two differ in ties alone.
      if (lower == 0x8000u) {
        EXPECT_EQ(bf16_bits(x) & 1u, 0u) << std::hex << bits(x);
      } else {
        EXPECT_EQ(bf16_bits(x), parts.high) << std::hex << bits(x);
      }
    }
}

TEST(SplitFloat, of_what_is_bf16_already_leaves_nothing_out) {
  for (const float x :
       {0.0f, -0.0f, 1.0f, -3.5f, 0x1p-133f, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(split_float(x).low, 0) << x;
    EXPECT_EQ(bits(of_high(split_float(x))), bits(x)) << x;
  }
}
