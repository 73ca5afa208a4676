// Which experts a token goes to: what oracles with random numbers do not reach.
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "ops/op_table.h"

using namespace sheaf;

namespace {

template <class T>
at::Tensor row(const std::vector<T>& values, at::ScalarType dtype) {
  at::Tensor t = at::empty({1, std::ssize(values)}, dtype);
  std::copy(values.begin(), values.end(), t.data_ptr<T>());
  return t;
}

std::vector<int> chosen(const at::Tensor& scores, const at::Tensor& bias, Int k, Int groups = 0, Int kept = 0, Int top = 0) {
  const std::vector<at::Tensor> in = {scores, bias};
  std::vector<at::Tensor> out = {at::empty({1, k}, at::kInt)};
  const Attrs attrs = {{"k", k}, {"groups", groups}, {"kept_groups", kept}, {"group_top", top}};
  op("choose_experts").kernel({in, out, attrs});
  return {out[0].data_ptr<int>(), out[0].data_ptr<int>() + k};
}
std::vector<int> chosen(const std::vector<float>& scores, const std::vector<float>& bias, Int k, Int groups = 0, Int kept = 0,
                        Int top = 0) {
  return chosen(row(scores, at::kFloat), bias.empty() ? at::Tensor() : row(bias, at::kFloat).squeeze(0), k, groups, kept, top);
}
using Ids = std::vector<int>;

}    // namespace

TEST(ChooseExperts, best_first_and_equal_ones_by_index) {
  EXPECT_EQ(chosen({1, 3, 2, 3, 3}, {}, 4), (Ids{1, 3, 4, 2}));
  EXPECT_EQ(chosen(std::vector<float>(64, 0.5f), {}, 3), (Ids{0, 1, 2}));    // as at the start of training: beyond any small-sort path
}

TEST(ChooseExperts, a_bias_chooses) { EXPECT_EQ(chosen({1, 3, 2}, {5, 0, 0.5f}, 2), (Ids{0, 1})); }

// Groups {0, 1}, {2, 3}, {4, 5}.
TEST(ChooseExperts, groups_are_ranked_by_the_sum_of_their_best) {
  const std::vector<float> scores = {9, 0, 5, 6, 4, 4};
  EXPECT_EQ(chosen(scores, {}, 2, 3, 1, 1), (Ids{0, 1}));    // by the best one
  EXPECT_EQ(chosen(scores, {}, 2, 3, 1, 2), (Ids{3, 2}));    // by the best two
  EXPECT_EQ(chosen(scores, {}, 3, 3, 2, 2), (Ids{0, 3, 2}));
  EXPECT_EQ(chosen({-1, -2, -3, -4, -5, -6}, {}, 2, 3, 1, 2), (Ids{0, 1}));    // what is out is below any score, not 0
  EXPECT_EQ(chosen({1, 1, 1, 1, 1, 1}, {}, 2, 3, 1, 2), (Ids{0, 1}));          // equal groups by index
}

TEST(ChooseExperts, is_exact_on_integers) {
  const std::int64_t big = (std::int64_t{1} << 60) + 1;    // two that a double cannot tell apart
  EXPECT_EQ(chosen(row<std::int64_t>({big, big + 1, big - 1}, at::kLong), {}, 3), (Ids{1, 0, 2}));
}
