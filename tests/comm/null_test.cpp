#include "comm/null.h"

#include <gtest/gtest.h>

#include <array>

#include "base/error.h"

using namespace sheaf;

TEST(Null, counts_by_kind_and_size_of_the_group) {
  NullTransport t(1, 8);
  t.exchange({0, 1}, std::array{ConstBytes{nullptr, 10}, ConstBytes{nullptr, 7}}, std::array{Bytes{nullptr, 3}, Bytes{nullptr, 7}}, "swap");
  t.all_reduce({0, 1}, nullptr, 5, DType::bf16, Reduction::sum, "a");
  t.all_reduce({0, 1}, nullptr, 6, DType::fp32, Reduction::max, "b");
  t.all_reduce({1, 3, 5}, nullptr, 6, DType::fp32, Reduction::max, "c");
  t.reduce_scatter({0, 1, 2}, nullptr, nullptr, 4, DType::i64, Reduction::sum, "d");
  t.all_gather({0, 1, 2}, nullptr, nullptr, 9, "e");
  const NullTransport::Counts wanted = {{{"exchange", 2}, {1, 10}},
                                        {{"all_reduce", 2}, {2, 10 + 24}},
                                        {{"all_reduce", 3}, {1, 24}},
                                        {{"reduce_scatter", 3}, {1, 3 * 4 * 8}},
                                        {{"all_gather", 3}, {1, 27}}};
  EXPECT_EQ(t.counts(), wanted);
  EXPECT_THROW(t.all_gather({0, 2}, nullptr, nullptr, 9, "not mine"), InternalError);
}
