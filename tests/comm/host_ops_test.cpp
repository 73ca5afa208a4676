// What the suite of exchanges.h does not say about host_ops: the message of a disagreement.
#include "comm/host_ops.h"

#include <gtest/gtest.h>

#include "base/text.h"
#include "comm/local.h"
#include "comm/rank_threads.h"

using namespace sheaf;
using namespace sheaf::test;

namespace {
std::vector<Outcome> compare(const std::vector<std::string>& values) {
  LocalWorld world(static_cast<int>(values.size()), 60);
  return run_ranks(world.size(), [&](int rank) { expect_equal(world.at(rank), values[rank], "run.json"); });
}
}    // namespace

TEST(HostOps, expect_equal_tells_all_ranks_which_one_differs) {
  for (const Outcome& o : compare({"abc", "abc", "abd", "abc"}))
    EXPECT_EQ(o.text,
              "run.json must be the same on all ranks, but differs on rank 2\n  rank 0 has 'abc'\n  rank 2 has 'abd'\n"
              "start all ranks with the same program, files, arguments and environment");
}

TEST(HostOps, the_odd_one_out_may_be_rank_0) {
  for (const Outcome& o : compare({"x", "y", "y"}))
    EXPECT_TRUE(has(o.text, "differs on rank 0\n  rank 1 has 'y'\n  rank 0 has 'x'")) << o.text;
}

TEST(HostOps, long_values_are_shown_where_they_differ) {
  std::string a(10000, 'a'), b = a;
  b[5000] = 'B';
  for (const Outcome& o : compare({a, b})) {
    EXPECT_TRUE(has(o.text, "...aaaaaaaaaaaaaaaaaaaaBaaa")) << o.text;
    EXPECT_LT(o.text.size(), 500u);
    EXPECT_LE(split(o.text, '\n').size(), 8u);
  }
}

TEST(HostOps, of_many_lines_the_one_that_differs_is_shown) {
  const std::string before(200, 'x'), after(200, 'y');
  for (const Outcome& o : compare({before + "\nclip 0.5\n" + after, before + "\nclip 0.25\n" + after}))
    EXPECT_TRUE(has(o.text, "rank 0 has 'clip 0.5'\n  rank 1 has 'clip 0.25'")) << o.text;
}

TEST(HostOps, a_prefix_differs) {
  for (const Outcome& o : compare({"abc", "abc", ""})) EXPECT_TRUE(has(o.text, "rank 2 has ''")) << o.text;
}
