#include "checkpoint/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

using namespace sheaf;

namespace {

// The value of a small float by its definition, without any bit trick: sign, exponent, fraction.
double value_of(std::uint32_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const int exponent = static_cast<int>(bits >> fraction_bits) & top;
  const double fraction = std::ldexp(bits & ((1u << fraction_bits) - 1), -fraction_bits);
  const double sign = (bits >> (exponent_bits + fraction_bits)) ? -1 : 1;
  if (exponent == top) return fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  return sign * (exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias));
}

struct Format {
  int exponent_bits, fraction_bits;
  void (*to_fp32)(const void*, float*, std::int64_t);
  void (*from_fp32)(const float*, void*, std::int64_t);
};
class SmallFloats : public testing::TestWithParam<Format> {
 protected:
  double value(std::uint32_t bits) const { return value_of(bits, GetParam().exponent_bits, GetParam().fraction_bits); }
  std::uint16_t down(float x) const {
    std::uint16_t bits = 0;
    GetParam().from_fp32(&x, &bits, 1);
    return bits;
  }
  std::uint16_t infinity() const { return static_cast<std::uint16_t>(((1 << GetParam().exponent_bits) - 1) << GetParam().fraction_bits); }
};

}    // namespace

TEST_P(SmallFloats, all_65536_patterns_widen_to_their_value) {
  std::vector<std::uint16_t> patterns(65536);
  for (std::uint32_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<std::uint16_t>(i);
  std::vector<float> wide(patterns.size());
  GetParam().to_fp32(patterns.data(), wide.data(), 65536);
  for (std::uint32_t i = 0; i < patterns.size(); ++i) {
    if (std::isnan(value(i))) {
      ASSERT_TRUE(std::isnan(wide[i])) << i;
    } else {
      ASSERT_EQ(wide[i], value(i)) << i;
    }
    ASSERT_EQ(std::signbit(wide[i]), (i & 0x8000u) != 0) << i;
  }
}

TEST_P(SmallFloats, all_65536_patterns_come_back_bit_for_bit_and_NaN_stays_NaN) {
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    float wide = 0;
    GetParam().to_fp32(&bits, &wide, 1);
    if (std::isnan(wide)) {
      ASSERT_TRUE(std::isnan(value(down(wide)))) << i;
    } else {
      ASSERT_EQ(down(wide), bits) << i;
    }
  }
}

TEST_P(SmallFloats, between_two_neighbours_the_nearest_is_taken_and_the_even_one_of_a_tie) {
  for (std::uint32_t i = 0; i < infinity(); ++i) {    // every pair of neighbours, largest and infinity included
    const double low = value(i);
    // What would follow the largest number if exponents went on: the point half-way to it rounds to infinity.
    const double high = i + 1 < infinity() ? value(i + 1) : 2 * low - value(i - 1);
    const auto middle = static_cast<float>((low + high) / 2);    // exact: one more bit than the format has
    for (const std::uint32_t sign : {0u, 0x8000u}) {
      const auto signed_of = [&](float x) { return sign ? -x : x; };
      ASSERT_EQ(down(signed_of(middle)), sign | (i % 2 ? i + 1 : i)) << i;
      ASSERT_EQ(down(signed_of(std::nextafter(middle, 0.0f))), sign | i) << i;
      ASSERT_EQ(down(signed_of(std::nextafter(middle, std::numeric_limits<float>::infinity()))), sign | (i + 1)) << i;
    }
  }
}

TEST_P(SmallFloats, a_NaN_whose_payload_is_cut_off_is_no_infinity) {
  EXPECT_TRUE(std::isnan(value(down(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(value(down(std::bit_cast<float>(0xff800001u)))));
  EXPECT_EQ(down(std::numeric_limits<float>::infinity()), infinity());
  EXPECT_EQ(down(std::numeric_limits<float>::max()), infinity());
}

INSTANTIATE_TEST_SUITE_P(Bf16, SmallFloats, testing::Values(Format{8, 7, bf16_to_fp32, fp32_to_bf16}));
INSTANTIATE_TEST_SUITE_P(Fp16, SmallFloats, testing::Values(Format{5, 10, fp16_to_fp32, fp32_to_fp16}));

TEST(Convert, long_unaligned_arrays_equal_the_elements_one_by_one) {
  std::mt19937 random(1);
  std::vector<std::byte> from(10001 * 2 + 1), to(10001 * 4 + 1);
  for (auto& byte : from) byte = static_cast<std::byte>(random());
  const std::pair<DType, DType> kinds[] = {
      {DType::bf16, DType::fp32}, {DType::fp16, DType::bf16}, {DType::bf16, DType::fp16}, {DType::fp16, DType::fp32}};
  for (const auto& [a, b] : kinds) {
    convert(a, from.data() + 1, b, to.data() + 1, 10001);
    for (int i = 0; i < 10001; ++i) {
      std::uint32_t one = 0;
      convert(a, from.data() + 1 + 2 * i, b, &one, 1);
      ASSERT_EQ(std::memcmp(&one, to.data() + 1 + i * size_bytes(b), static_cast<std::size_t>(size_bytes(b))), 0) << i;
    }
  }
}
TEST(Convert, equal_dtypes_are_copied_and_integers_never_become_floats) {
  const std::int64_t from[] = {1, -2};
  std::int64_t to[2] = {};
  convert(DType::i64, from, DType::i64, to, 2);
  EXPECT_EQ(to[1], -2);
  EXPECT_FALSE(is_convertible(DType::i64, DType::fp32));
  EXPECT_TRUE(is_convertible(DType::fp64, DType::bf16));
}
