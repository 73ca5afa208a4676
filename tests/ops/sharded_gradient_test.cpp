// Every op's gradient graph on 2 and 3 simulated ranks, from the op list alone: each factor of the op cut, the operands and what comes back
// (dy) placed in every combination that a program may meet. The glued gradients equal the whole ones: `==` in integer mode.
#include <algorithm>
#include <set>

#include "base/text.h"
#include "ops/simulated_ranks.h"
#include "runtime/interpret.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

class ShardedGradient : public ::testing::TestWithParam<std::tuple<Param, Mode>> {};

struct Problem {
  Call call;
  GradientGraph g;
  std::vector<at::Tensor> dout;     // undefined: none
  std::vector<at::Tensor> whole;    // gradients on one rank; undefined: none
};

Problem problem(const Param& param, Mode mode) {
  Problem p{make_call(*param.op, *param.c, mode, 11), {}, {}, {}};
  p.g = gradient_graph(p.call);
  std::mt19937_64 rng(12);
  Interpreter interpreter(p.g.graph, mode == Mode::integer ? Numbers::integer : Numbers::whole);
  for (std::size_t i = 0; i < p.g.in.size(); ++i)
    if (p.g.in[i]) interpreter.give(p.g.in[i], p.call.in[i]);
  for (const Value dy : p.g.dout) {
    p.dout.push_back(dy ? random_tensor(p.g.graph.type(dy).shape, mode, rng) : at::Tensor());
    if (dy) interpreter.give(dy, p.dout.back());
  }
  interpreter.run(Segment::first);
  for (std::size_t i = 0; i < p.g.in.size(); ++i)
    p.whole.push_back(p.g.wanted[i] && p.g.gradients[i] ? interpreter[p.g.gradients[i]] : at::Tensor());
  return p;
}

Placed cut(const at::Tensor& whole, const Rule::Factors& factors, const std::string& factor, int ranks) {
  const auto at = std::find(factors.begin(), factors.end(), factor);
  return at == factors.end() ? replicate(whole, ranks) : shard(whole, static_cast<std::size_t>(at - factors.begin()), ranks);
}

enum class Cut { both, operands, dout, dout_partial };
constexpr Cut kCuts[] = {Cut::both, Cut::operands, Cut::dout, Cut::dout_partial};

// The gradients of the operands, where the partitioner left them.
std::vector<Placed> run_cut(const Problem& p, const std::string& factor, Cut cuts, int ranks, Mode mode) {
  PartitionedRun run(p.g.graph, ranks, mode);
  std::mt19937_64 rng(13);
  for (std::size_t k = 0; k < p.call.present.size(); ++k) {
    const std::size_t i = p.call.present[k];
    run.give(p.g.in[i], cuts == Cut::dout ? replicate(p.call.in[i], ranks) : cut(p.call.in[i], p.call.rule.in[k], factor, ranks));
  }
  for (std::size_t o = 0; o < p.dout.size(); ++o) {
    if (!p.g.dout[o]) continue;
    if (cuts == Cut::dout_partial)
      run.give(p.g.dout[o], split_partial(p.dout[o], ranks, mode, rng));
    else
      run.give(p.g.dout[o], cuts == Cut::operands ? replicate(p.dout[o], ranks) : cut(p.dout[o], p.call.rule.out[o], factor, ranks));
  }
  run.run(Segment::first);
  std::vector<Placed> out;
  for (std::size_t i = 0; i < p.whole.size(); ++i) out.push_back(p.whole[i].defined() ? run[p.g.gradients[i]] : Placed{});
  return out;
}

// "" and the factors that may be cut: with "" nothing is sharded, which leaves the partial dy.
std::set<std::string> cuttable(const Rule& rule) {
  std::set<std::string> all = {""};
  for (const auto* side : {&rule.in, &rule.out})
    for (const auto& factors : *side)
      for (const std::string& factor : factors)
        if (!rule.is_full(factor)) all.insert(factor);
  return all;
}

std::string name_of_param(const ::testing::TestParamInfo<std::tuple<Param, Mode>>& info) {
  const Param& p = std::get<0>(info.param);
  return fmt::format("{}_{}_{}", p.op->name, p.index, std::get<1>(info.param) == Mode::integer ? "integer" : "fp64");
}

std::vector<Param> cases_with_gradient() {
  std::vector<Param> all = all_cases();
  std::erase_if(all, [](const Param& p) { return !p.op->grad; });
  return all;
}

}    // namespace

TEST_P(ShardedGradient, equals_the_whole_for_every_cut) {
  const auto& [param, mode] = GetParam();
  const Problem p = problem(param, mode);
  for (const std::string& factor : cuttable(p.call.rule))
    for (const Cut cuts : kCuts)
      for (int ranks = 2; ranks <= 3; ++ranks) {
        const std::vector<Placed> gradients = run_cut(p, factor, cuts, ranks, mode);
        for (std::size_t i = 0; i < gradients.size(); ++i) {
          if (!p.whole[i].defined()) continue;
          const std::string where =
              fmt::format("operand {}, cut {} ({}) over {}: {}", i, factor, static_cast<int>(cuts), ranks, p.call.rule.print());
          EXPECT_TRUE(same(glue(gradients[i]), p.whole[i], mode)) << where;
          for (const at::Tensor& piece : gradients[i].pieces)
            EXPECT_TRUE(gradients[i].kind != Placed::Kind::replicated || same(piece, p.whole[i], mode)) << where << ": a replica differs";
        }
      }
}

INSTANTIATE_TEST_SUITE_P(Ops, ShardedGradient,
                         ::testing::Combine(::testing::ValuesIn(cases_with_gradient()), ::testing::Values(Mode::fp64, Mode::integer)),
                         name_of_param);

namespace {

// Where the gradient of an operand ends up when operands and dy are cut; it is right, and no part of it is taken for the whole.
Placed gradient_of(const char* op_name, const std::string& factor, std::size_t operand, Mode mode = Mode::integer) {
  const OpDef& op_def = op(op_name);
  const Problem p = problem({&op_def, &*op_def.cases.begin(), 0}, mode);
  Placed placed = run_cut(p, factor, Cut::both, 2, mode)[operand];
  EXPECT_TRUE(same(glue(placed), p.whole[operand], mode));
  for (const at::Tensor& piece : placed.pieces)    // the test of the test: a part is not the whole
    EXPECT_FALSE(placed.kind == Placed::Kind::partial && same(piece, p.whole[operand], mode)) << op_name;
  return placed;
}

}    // namespace

// Data parallelism follows from the rules: a weight's gradient is partial over the tokens, by itself, and so is that of a norm's scale.
TEST(ShardedGradients, of_weights_are_partial_over_tokens) {
  EXPECT_EQ(gradient_of("einsum", "b", 1).kind, Placed::Kind::partial);
  EXPECT_EQ(gradient_of("rms_norm", "..0", 1).kind, Placed::Kind::partial);
  EXPECT_EQ(gradient_of("embedding", "..0", 0).kind, Placed::Kind::partial);
}

// Tensor parallelism likewise: with heads cut, the weight's gradient is cut and that of the activations is partial.
TEST(ShardedGradients, of_activations_are_partial_over_heads) {
  EXPECT_EQ(gradient_of("einsum", "h", 1).kind, Placed::Kind::sharded);
  EXPECT_EQ(gradient_of("einsum", "h", 0).kind, Placed::Kind::partial);
  EXPECT_EQ(gradient_of("attention", "r", 0).kind, Placed::Kind::sharded);    // dq
  EXPECT_EQ(gradient_of("attention", "r", 1).kind, Placed::Kind::partial);    // dk: a kv head serves query heads of both ranks
}
