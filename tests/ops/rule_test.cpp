// Every rule, brute-forced on 2 to 4 simulated ranks: cut each factor, pass partials through each operand that admits them, and compare
// with the whole. Then the tests of the tests: a rule that is wrong in a fixed way must be caught.
#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "ops/simulated_ranks.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

bool has_kernel(const OpDef& op) { return op.kernel && op.name != "set"; }

std::set<std::string> factors_of(const Rule& rule) {
  std::set<std::string> all;
  for (const auto& in : rule.in) all.insert(in.begin(), in.end());
  return all;
}

// The operands with `factor` cut over the ranks, wherever it occurs.
std::vector<Placed> cut(const Call& call, const Rule& rule, const std::string& factor, int ranks) {
  std::vector<Placed> in(call.in.size());
  for (std::size_t p = 0; p < call.present.size(); ++p) {
    const std::size_t i = call.present[p];
    const auto at = std::find(rule.in[p].begin(), rule.in[p].end(), factor);
    in[i] =
        at == rule.in[p].end() ? replicate(call.in[i], ranks) : shard(call.in[i], static_cast<std::size_t>(at - rule.in[p].begin()), ranks);
  }
  return in;
}

// Does the rule hold for this cut? A shape error or a wrong value is a no.
bool holds(const Call& call, const Rule& rule, const std::string& factor, int ranks, Mode mode) {
  const auto whole = call.run(mode);
  std::vector<Placed> out;
  try {
    out = run_ranks(call, rule, cut(call, rule, factor, ranks), factor, false, mode);
    for (std::size_t o = 0; o < whole.size(); ++o)
      if (!same(glue(out[o]), whole[o], mode)) return false;
  } catch (const std::exception&) {
    return false;
  }
  return true;
}

// Operands that may be partial: each of `linear` alone, those of `add` together.
std::vector<std::vector<std::size_t>> partial_sets(const Call& call) {
  std::vector<std::vector<std::size_t>> sets;
  const auto position = [&](const std::string& name) -> std::size_t {
    const auto at = std::find(call.op->operands.begin(), call.op->operands.end(), name);
    SHEAF_CHECK(at != call.op->operands.end(), "{}: the rule names operand '{}', which it does not have", call.op->name, name);
    return static_cast<std::size_t>(at - call.op->operands.begin());
  };
  for (const std::string& name : call.rule.linear) sets.push_back({position(name)});
  if (!call.rule.add.empty()) {
    sets.emplace_back();
    for (const std::string& name : call.rule.add) {
      sets.back().push_back(position(name));
      // Where an op takes any number of operands, one name is that of all.
      for (std::size_t i = call.op->operands.size(); i < call.in.size(); ++i) sets.back().push_back(i);
    }
  }
  return sets;
}

class RuleOf : public ::testing::TestWithParam<std::tuple<Param, Mode>> {};
std::string name_of_param(const ::testing::TestParamInfo<std::tuple<Param, Mode>>& info) {
  const Param& p = std::get<0>(info.param);
  return fmt::format("{}_{}_{}", p.op->name, p.index, std::get<1>(info.param) == Mode::integer ? "integer" : "fp64");
}

}    // namespace

TEST_P(RuleOf, any_factor_may_be_cut_over_ranks) {
  const auto& [param, mode] = GetParam();
  if (!has_kernel(*param.op)) return;
  const Call call = make_call(*param.op, *param.c, mode, 3);
  for (const std::string& factor : factors_of(call.rule)) {
    if (call.rule.is_full(factor)) continue;
    for (const int ranks : {2, 3, 4, 11})    // 11: more than the extents of most cases, so that some ranks have nothing
      EXPECT_TRUE(holds(call, call.rule, factor, ranks, mode)) << call.rule.print() << ": cut " << factor << " over " << ranks;
  }
}

TEST_P(RuleOf, partials_pass_where_the_rule_says_so) {
  const auto& [param, mode] = GetParam();
  if (!has_kernel(*param.op)) return;
  const Call call = make_call(*param.op, *param.c, mode, 4);
  const auto whole = call.run(mode);
  std::mt19937_64 rng(5);
  for (const auto& operands : partial_sets(call))
    for (int ranks = 2; ranks <= 3; ++ranks) {
      std::vector<Placed> in(call.in.size());
      for (const std::size_t i : call.present)
        in[i] = std::find(operands.begin(), operands.end(), i) != operands.end() ? split_partial(call.in[i], ranks, mode, rng)
                                                                                 : replicate(call.in[i], ranks);
      const auto out = run_ranks(call, call.rule, in, "", true, mode);
      for (std::size_t o = 0; o < whole.size(); ++o)
        EXPECT_TRUE(same(glue(out[o]), whole[o], mode)) << call.rule.print() << ": partial operand " << operands[0];
    }
}

// ---- The tests of the tests. Mutations of a rule that change its meaning must turn it red.

TEST_P(RuleOf, a_partial_called_replicated_is_caught) {
  const auto& [param, mode] = GetParam();
  if (!has_kernel(*param.op)) return;
  const Call call = make_call(*param.op, *param.c, mode, 6);
  const auto whole = call.run(mode);
  for (const std::string& factor : factors_of(call.rule)) {
    if (call.rule.is_full(factor)) continue;
    auto out = run_ranks(call, call.rule, cut(call, call.rule, factor, 2), factor, false, mode);
    for (std::size_t o = 0; o < whole.size(); ++o) {
      if (out[o].kind != Placed::Kind::partial) continue;
      bool all_replicas_right = true;    // each rank's part taken for the whole
      for (const at::Tensor& part : out[o].pieces) all_replicas_right &= same(part, whole[o], mode);
      EXPECT_FALSE(all_replicas_right) << call.rule.print() << ": output " << o << " is not partial over " << factor;
    }
  }
}

TEST_P(RuleOf, two_letters_swapped_are_caught) {
  const auto& [param, mode] = GetParam();
  if (!has_kernel(*param.op)) return;
  const Call call = make_call(*param.op, *param.c, mode, 7);
  for (std::size_t o = 0; o < call.rule.out.size(); ++o)
    for (std::size_t d = 0; d + 1 < call.rule.out[o].size(); ++d) {
      Rule wrong = call.rule;
      std::swap(wrong.out[o][d], wrong.out[o][d + 1]);
      bool caught = false;
      int cuttable = 0;
      for (const std::string& factor : {wrong.out[o][d], wrong.out[o][d + 1]})
        if (!wrong.is_full(factor)) ++cuttable, caught |= !holds(call, wrong, factor, 2, mode);
      EXPECT_TRUE(caught || cuttable == 0) << wrong.print();
    }
}

INSTANTIATE_TEST_SUITE_P(Ops, RuleOf, ::testing::Combine(::testing::ValuesIn(all_cases()), ::testing::Values(Mode::fp64, Mode::integer)),
                         name_of_param);

TEST(Rules, an_owner_that_ignores_its_offset_is_caught) {
  const OpDef& embedding = op("embedding");
  const Call call = make_call(embedding, *embedding.cases.begin(), Mode::integer, 8);
  Rule wrong = call.rule;
  wrong.owner.clear();    // then no rank is told where its rows begin
  EXPECT_FALSE(holds(call, wrong, "v", 2, Mode::integer));
}

TEST(Rules, print_and_parse_are_inverse) {
  for (const char* text :
       {"b s k, h k -> b s h; linear x y", ".. v, .. -> ..; reduce max", "(), .. -> ..", ".. k, .., v k -> v k; owner v; linear dy"})
    EXPECT_EQ(Rule::parse(text).print(), text);
}

TEST(Rules, a_shape_error_names_factor_and_operands) {
  const Type x{DType::fp32, {2, 8}, {}}, w{DType::fp32, {3, 6}, {}};
  try {
    infer(op("einsum"), {{"rule", Text("t k, n k -> t n")}, {"dtype", Text("same")}}, {&x, &w});
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(), "einsum: factor 'k' is 8 in input 0 (dim 1) but 6 in input 1 (dim 1)");
  }
}
