// Every op's gradient graph against central finite differences of its kernel, in fp64, from the op list alone.
#include <ATen/ops/zeros.h>

#include "base/text.h"
#include "ops/builder.h"
#include "ops/op_cases.h"
#include "ops/routing.h"
#include "runtime/interpret.h"

using namespace sheaf;
using namespace sheaf::testing;

class Gradient : public ::testing::TestWithParam<Param> {};

// L = sum over outputs of <weight, output>.
static double objective(const Call& call, const std::vector<at::Tensor>& in, const std::vector<at::Tensor>& weights) {
  double total = 0;
  const auto out = call.run_on(in, 0, Mode::fp64);
  for (std::size_t o = 0; o < weights.size(); ++o) total += out[o].to(at::kDouble).mul(weights[o]).sum().item<double>();
  return total;
}

// Random. Of a routed output what was not chosen is not read, so nothing depends on it.
static at::Tensor gradient_of_output(const Call& call, const Type& type, std::mt19937_64& rng) {
  at::Tensor dy = random_tensor(type.shape, Mode::fp64, rng);
  if (type.routed == 0 || !has_operand(*call.op, "expert")) return dy;
  const auto& names = call.op->operands;
  return where_chosen(dy, call.in[static_cast<std::size_t>(std::find(names.begin(), names.end(), "expert") - names.begin())]);
}

TEST_P(Gradient, equals_finite_differences) {
  const OpDef& op = *GetParam().op;
  const Call call = make_call(op, *GetParam().c, Mode::fp64, 1);
  if (!op.grad) {
    SUCCEED();
    return;
  }
  const GradientGraph g = gradient_graph(call);
  std::mt19937_64 rng(2);
  std::vector<at::Tensor> weights;
  Interpreter interpreter(g.graph, Numbers::whole);
  for (std::size_t i = 0; i < g.in.size(); ++i)
    if (g.in[i]) interpreter.give(g.in[i], call.in[i]);
  for (const Value dy : g.dout)
    if (dy) interpreter.give(dy, weights.emplace_back(gradient_of_output(call, g.graph.type(dy), rng)));
  interpreter.run(Segment::first);

  int checked = 0;
  for (std::size_t i = 0; i < g.in.size(); ++i) {
    if (!g.wanted[i]) continue;
    if (!g.gradients[i]) {
      EXPECT_FALSE(op.no_gradient.empty()) << op.name << ": operand " << op.operands[i] << " has no gradient and no reason is declared";
      continue;
    }
    const at::Tensor analytic = interpreter[g.gradients[i]].contiguous();
    ASSERT_EQ(analytic.sizes(), call.in[i].sizes());
    // Central differences with h = 1e-6 in fp64: truncation h^2 and rounding 1e-16/h are both near 1e-10 of the values of order 1 here.
    for (std::int64_t e = 0; e < analytic.numel(); ++e) {
      const double h = 1e-6;
      const auto at = [&](double by) {
        std::vector<at::Tensor> moved = call.in;
        moved[i] = call.in[i].clone();
        moved[i].data_ptr<double>()[e] += by;
        return objective(call, moved, weights);
      };
      const double numeric = (at(h) - at(-h)) / (2 * h), exact = analytic.data_ptr<double>()[e];
      ASSERT_NEAR(exact, numeric, 1e-7 * (1 + std::abs(numeric))) << op.name << ", operand " << op.operands[i] << ", element " << e;
    }
    ++checked;
  }
  EXPECT_GT(checked, 0);
}

INSTANTIATE_TEST_SUITE_P(Ops, Gradient, ::testing::ValuesIn(all_cases()), param_name);

// An op whose outputs are of floats has a gradient, or says why not, or is itself a gradient or part of the end of a step.
TEST(Ops, docs_are_generated_for_every_op) {
  const std::string text = ops_markdown();
  for (const OpDef& op : all_ops()) {
    EXPECT_NE(text.find(fmt::format("| `{}` |", op.name)), std::string::npos);
    EXPECT_FALSE(op.doc.empty()) << op.name;
  }
}
