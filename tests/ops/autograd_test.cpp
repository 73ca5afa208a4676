// Gradients of our ops, by differentiate and the interpreter in fp64, against LibTorch's own autograd on the same function written with
// ATen. Finite differences (gradient_test) see 7 digits; this sees all of them, and also that the kernels compute what ATen computes.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>

#include <functional>
#include <set>

#include "base/text.h"
#include "ops/builder.h"
#include "ops/op_cases.h"
#include "passes/pass.h"
#include "runtime/interpret.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

using Tensors = std::vector<at::Tensor>;

struct Example {
  std::string name;
  std::vector<Shape> real;    // operands that gradients are taken of, standard normal
  Tensors data;               // integer operands, after them
  std::function<Value(Builder&, const Values&)> ours;
  std::function<at::Tensor(const Tensors&)> theirs;
};

at::Tensor indices(const Shape& shape, std::int64_t below, std::int64_t ignored_each = 0) {
  at::Tensor t = at::arange(num_elements(shape), at::kLong).mul(7).add(3).remainder(below);
  if (ignored_each > 0) t = t.masked_fill(at::arange(num_elements(shape), at::kLong).remainder(ignored_each).eq(1), -100);
  return t.view(shape);
}

// [b, s, hk, r, d] -> [b, hk r, s, d] and back: ATen's layout of heads.
at::Tensor heads(const at::Tensor& q) { return q.reshape({q.size(0), q.size(1), -1, q.size(-1)}).transpose(1, 2); }

// True where query i may look at key j.
at::Tensor visible(std::int64_t s, std::int64_t window) {
  const at::Tensor i = at::arange(s, at::kLong).unsqueeze(1), j = at::arange(s, at::kLong).unsqueeze(0);
  const at::Tensor causal = j.le(i);
  return window > 0 ? causal.logical_and(j.gt(i.sub(window))) : causal;
}

at::Tensor ends_of(const std::vector<std::vector<std::int64_t>>& rows) {
  at::Tensor ends = at::empty({std::ssize(rows), std::ssize(rows[0])}, at::kLong);
  for (std::size_t i = 0; i < rows.size(); ++i)
    std::copy(rows[i].begin(), rows[i].end(), ends[static_cast<std::int64_t>(i)].data_ptr<std::int64_t>());
  return ends;
}
// [b, 1, s, s]: a token's document is the number of ends at or before it.
at::Tensor same_document(const at::Tensor& ends, std::int64_t s) {
  const at::Tensor document = ends.unsqueeze(2).le(at::arange(s, at::kLong)).sum(1);
  return document.unsqueeze(1).eq(document.unsqueeze(2)).unsqueeze(1);
}

at::Tensor sdpa(const Tensors& x, const at::Tensor& mask, double scale) {
  const at::Tensor y =
      at::scaled_dot_product_attention(heads(x[0]), x[1].transpose(1, 2), x[2].transpose(1, 2), mask, 0, false, scale, true);
  return y.transpose(1, 2).reshape({x[0].size(0), x[0].size(1), x[0].size(2), x[0].size(3), x[2].size(-1)});
}

// A sink is a further logit of each head whose value is 0.
at::Tensor attention_with_sinks(const Tensors& x, const at::Tensor& mask, double scale) {
  const at::Tensor scores = at::einsum("bshrd,buhd->bhrsu", {x[0], x[1]}).mul(scale).masked_fill(mask.logical_not(), -INFINITY);
  const at::Tensor sinks = x[3].view({1, x[3].size(0), x[3].size(1), 1, 1}).expand({scores.size(0), -1, -1, scores.size(3), 1});
  const at::Tensor p = at::cat({scores, sinks}, -1).softmax(-1).slice(-1, 0, scores.size(-1));
  return at::einsum("bhrsu,buhe->bshre", {p, x[2]});
}

// Angle t turns (a, b) into (a cos t - b sin t, a sin t + b cos t); pairs (i, i + j), or neighbours.
at::Tensor turned(const at::Tensor& x, const at::Tensor& c, const at::Tensor& s, bool interleaved) {
  const std::int64_t j = c.size(-1);
  const at::Tensor head = x.slice(-1, 0, 2 * j), rest = x.slice(-1, 2 * j);
  const at::Tensor a = interleaved ? head.slice(-1, 0, 2 * j, 2) : head.slice(-1, 0, j),
                   b = interleaved ? head.slice(-1, 1, 2 * j, 2) : head.slice(-1, j, 2 * j);
  const at::Tensor cc = c.unsqueeze(2), ss = s.unsqueeze(2), a2 = a.mul(cc).sub(b.mul(ss)), b2 = a.mul(ss).add(b.mul(cc));
  return at::cat({interleaved ? at::stack({a2, b2}, -1).flatten(-2) : at::cat({a2, b2}, -1), rest}, -1);
}

Example einsum_example(const std::string& rule, std::vector<Shape> shapes) {
  std::string equation;
  for (const char c : rule)
    if (c != ' ' && c != '(' && c != ')') equation += c;
  return {"einsum " + rule,
          shapes,
          {},
          [=](Builder& b, const Values& x) { return b.einsum(rule, x[0], x.size() > 1 ? x[1] : Value{}); },
          [=](const Tensors& x) { return at::einsum(equation, x); }};
}

Example attention_example(std::int64_t window) {
  return {fmt::format("attention window {}", window),
          {{2, 5, 3, 2, 4}, {2, 5, 3, 4}, {2, 5, 3, 3}},
          {},
          [=](Builder& b, const Values& x) { return b.attention(x[0], x[1], x[2], {}, {}, true, 0.4, window)[0]; },
          [=](const Tensors& x) { return sdpa(x, visible(5, window), 0.4); }};
}

Example rotate_example(bool interleaved, bool inverse) {
  return {fmt::format("rotate interleaved {} inverse {}", interleaved, inverse),
          {{2, 3, 4, 6}},
          {},
          [=](Builder& b, const Values& x) {
            std::vector<double> c, s;
            for (int i = 0; i < 12; ++i) c.push_back(std::cos(0.7 * i)), s.push_back(std::sin(0.7 * i));
            return b.rotate(x[0], b.constant("cos", DType::fp64, {2, 3, 2}, c), b.constant("sin", DType::fp64, {2, 3, 2}, s), interleaved,
                            inverse);
          },
          [=](const Tensors& x) {
            const at::Tensor angle = at::arange(12, at::kDouble).mul(inverse ? -0.7 : 0.7).view({2, 3, 2});
            return turned(x[0], angle.cos(), angle.sin(), interleaved);
          }};
}

// y of (gate, up), clamped first where there is a limit; the pair is the dim before the last, and the last.
Example gated_example(const char* activation, double limit, at::Tensor (*y)(const at::Tensor& gate, const at::Tensor& up)) {
  const bool last = limit > 0;
  return {fmt::format("gated {} {}", activation, limit),
          {last ? Shape{2, 3, 5, 2} : Shape{2, 3, 2, 5}},
          {},
          [=](Builder& b, const Values& x) { return b.gated(x[0], last ? "b s m g -> b s m" : "b s g m -> b s m", activation, limit); },
          [=](const Tensors& x) {
            const at::Tensor gate = x[0].select(last ? 3 : 2, 0), up = x[0].select(last ? 3 : 2, 1);
            return last ? y(gate.clamp_max(limit), up.clamp(-limit, limit)) : y(gate, up);
          }};
}

std::vector<Example> examples() {
  const Shape m = {3, 5};
  const at::Tensor chosen =
      at::arange(12, at::kLong).mul(at::arange(12, at::kLong)).remainder(4).add(at::arange(12, at::kLong).remainder(2)).view({2, 3, 2});
  const at::Tensor ids = indices({2, 6}, 7), labels = indices({2, 6}, 9, 4);
  return {
      {"silu", {m}, {}, [](Builder& b, const Values& x) { return b.silu(x[0]); }, [](const Tensors& x) { return at::silu(x[0]); }},
      {"gelu", {m}, {}, [](Builder& b, const Values& x) { return b.gelu(x[0], false); }, [](const Tensors& x) { return at::gelu(x[0]); }},
      {"gelu tanh",
       {m},
       {},
       [](Builder& b, const Values& x) { return b.gelu(x[0], true); },
       [](const Tensors& x) { return at::gelu(x[0], "tanh"); }},
      {"relu", {m}, {}, [](Builder& b, const Values& x) { return b.relu(x[0]); }, [](const Tensors& x) { return at::relu(x[0]); }},
      {"rms_norm",
       {{2, 3, 5}, {5}},
       {},
       [](Builder& b, const Values& x) { return b.rms_norm(x[0], x[1], 1e-3); },
       [](const Tensors& x) { return at::rms_norm(x[0], {5}, x[1], 1e-3); }},
      {"rms_norm over all heads",
       {{2, 3, 2, 5}, {2, 5}},
       {},
       [](Builder& b, const Values& x) { return b.rms_norm(x[0], x[1], 1e-3); },
       [](const Tensors& x) {
         return at::rms_norm(x[0], {2, 5}, x[1], 1e-3);
       }},
      {"rms_norm without a weight",
       {{2, 3, 5}},
       {},
       [](Builder& b, const Values& x) { return b.rms_norm(x[0], {}, 1e-3); },
       [](const Tensors& x) { return at::rms_norm(x[0], {5}, {}, 1e-3); }},
      {"add", {m, m}, {}, [](Builder& b, const Values& x) { return b.add(x[0], x[1]); }, [](const Tensors& x) { return x[0].add(x[1]); }},
      {"add a bias",
       {m, {5}},
       {},
       [](Builder& b, const Values& x) { return b.add(x[0], x[1]); },
       [](const Tensors& x) { return x[0].add(x[1]); }},
      {"mul", {m, m}, {}, [](Builder& b, const Values& x) { return b.mul(x[0], x[1]); }, [](const Tensors& x) { return x[0].mul(x[1]); }},
      {"a value read twice",
       {m},
       {},
       [](Builder& b, const Values& x) { return b.mul(x[0], b.silu(x[0])); },
       [](const Tensors& x) { return x[0].mul(at::silu(x[0])); }},
      {"sigmoid", {m}, {}, [](Builder& b, const Values& x) { return b.sigmoid(x[0]); }, [](const Tensors& x) { return x[0].sigmoid(); }},
      {"softmax", {m}, {}, [](Builder& b, const Values& x) { return b.softmax(x[0]); }, [](const Tensors& x) { return x[0].softmax(-1); }},
      {"clamp",
       {m},
       {},
       [](Builder& b, const Values& x) { return b.clamp(x[0], -0.5, 0.75); },
       [](const Tensors& x) { return x[0].clamp(-0.5, 0.75); }},
      {"normalize",
       {m},
       {},
       [](Builder& b, const Values& x) { return b.normalize(b.sigmoid(x[0]), 0.125, 2.5); },
       [](const Tensors& x) { return x[0].sigmoid().div(x[0].sigmoid().sum(-1, true).add(0.125).clamp_min(2.5)); }},
      {"take",
       {{2, 6, 7}},
       {ids.view({2, 6, 1})},
       [](Builder& b, const Values& x) { return b.take(x[0], x[1]); },
       [](const Tensors& x) { return at::gather(x[0], -1, x[1]); }},
      {"part",
       {m},
       {},
       [](Builder& b, const Values& x) { return b.part(x[0], 1, 3); },
       [](const Tensors& x) { return x[0].slice(-1, 1, 4); }},
      {"join",
       {m, {3, 2}},
       {},
       [](Builder& b, const Values& x) { return b.join(x[0], x[1]); },
       [](const Tensors& x) {
         return at::cat({x[0], x[1]}, -1);
       }},
      gated_example("silu", 0, [](const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate).mul(up); }),
      gated_example("gelu", 0, [](const at::Tensor& gate, const at::Tensor& up) { return at::gelu(gate).mul(up); }),
      gated_example("gelu_tanh", 0, [](const at::Tensor& gate, const at::Tensor& up) { return at::gelu(gate, "tanh").mul(up); }),
      gated_example("relu", 0, [](const at::Tensor& gate, const at::Tensor& up) { return at::relu(gate).mul(up); }),
      gated_example("silu", 0.75, [](const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate).mul(up); }),
      gated_example("clamped_swiglu", 0.75,
                    [](const at::Tensor& gate, const at::Tensor& up) { return gate.mul(gate.mul(1.702).sigmoid()).mul(up.add(1)); }),
      {"scale", {m}, {}, [](Builder& b, const Values& x) { return b.scale(x[0], -1.7); }, [](const Tensors& x) { return x[0].mul(-1.7); }},
      {"cast",
       {m},
       {},
       [](Builder& b, const Values& x) { return b.cast(b.cast(x[0], "fp32"), "fp64"); },
       [](const Tensors& x) { return x[0].to(at::kFloat).to(at::kDouble); }},
      {"broadcast",
       {{3}, m},
       {},
       [](Builder& b, const Values& x) { return b.mul(b.broadcast(x[0], x[1], "a, a b -> a b"), x[1]); },
       [](const Tensors& x) { return x[0].unsqueeze(1).mul(x[1]); }},
      {"embedding",
       {{7, 3}},
       {ids},
       [](Builder& b, const Values& x) { return b.embedding(x[0], x[1], -1); },
       [](const Tensors& x) { return at::embedding(x[0], x[1]); }},
      {"embedding with padding",
       {{7, 3}},
       {ids},
       [](Builder& b, const Values& x) { return b.embedding(x[0], x[1], 3); },
       [](const Tensors& x) { return at::embedding(x[0], x[1], 3); }},
      einsum_example("b s k, h r d k -> b s h r d", {{2, 3, 5}, {2, 3, 2, 5}}),
      einsum_example("b s h r d, k h r d -> b s k", {{2, 3, 2, 3, 2}, {5, 2, 3, 2}}),
      einsum_example("e t k, e n k -> e t n", {{3, 4, 5}, {3, 2, 5}}),
      einsum_example("t e k, n k e -> e n t", {{4, 3, 5}, {2, 5, 3}}),
      einsum_example("a b c, b d -> a d", {{2, 3, 4}, {3, 5}}),
      einsum_example("b s d, b s -> b s d", {{2, 3, 4}, {2, 3}}),
      einsum_example("a b c -> c a", {{2, 3, 4}}),
      einsum_example("a b -> ()", {{3, 5}}),
      attention_example(0),
      attention_example(2),
      {"attention inside documents, not causal",
       {{2, 5, 3, 2, 4}, {2, 5, 3, 4}, {2, 5, 3, 4}},
       {ends_of({{2, 2}, {0, 3}})},
       [](Builder& b, const Values& x) { return b.attention(x[0], x[1], x[2], x[3], {}, false, 0.5, 0)[0]; },
       [](const Tensors& x) { return sdpa(x, same_document(x[3], 5), 0.5); }},
      {"attention of several blocks of queries, with documents and a window",
       {{2, 300, 1, 2, 4}, {2, 300, 1, 4}, {2, 300, 1, 4}},
       {ends_of({{7, 290, 299}, {0, 130, 300}})},
       [](Builder& b, const Values& x) { return b.attention(x[0], x[1], x[2], x[3], {}, true, 0.5, 140)[0]; },
       [](const Tensors& x) { return sdpa(x, same_document(x[3], 300).logical_and(visible(300, 140)), 0.5); }},
      {"attention with sinks",
       {{2, 5, 3, 2, 4}, {2, 5, 3, 4}, {2, 5, 3, 4}, {3, 2}},
       {},
       [](Builder& b, const Values& x) { return b.attention(x[0], x[1], x[2], {}, x[3], true, 0.5, 3)[0]; },
       [](const Tensors& x) { return attention_with_sinks(x, visible(5, 3), 0.5); }},
      rotate_example(false, false),
      rotate_example(true, false),
      rotate_example(false, true),
      {"cross-entropy",
       {{2, 6, 9}},
       {labels},
       [](Builder& b, const Values& x) {
         const Value max = b.row_max(x[0]);
         return b.nll(max, b.sum_exp(x[0], max), b.pick(x[0], x[1]), x[1]);
       },
       [](const Tensors& x) {
         return at::cross_entropy_loss(x[0].flatten(0, 1), x[1].flatten(), {}, 0, -100, 0.0).view({2, 6});
       }},
      {"reshard", {{3, 5}}, {}, [](Builder& b, const Values& x) { return b.reshard(x[0]); }, [](const Tensors& x) { return x[0].clone(); }},
      {"experts with biases",
       {{2, 3, 4}, {2, 3, 2}, {5, 2, 3, 4}, {5, 4, 3}, {5, 2, 3}},
       {chosen},
       [](Builder& b, const Values& x) {
         const Results route = b.route(x[5], {}, 5);
         const Value rows = b.grouped_einsum(b.dispatch(x[0], route[0], 2), x[2], route[1], "e b s h, e g m h -> e b s g m", "same");
         const Value biased = b.add_expert_bias(rows, x[4], route[1]);
         const Value up = b.einsum("e b s g m -> e b s m", b.silu(biased));
         const Value down = b.grouped_einsum(up, x[3], route[1], "e b s m, e h m -> e b s h", "same");
         return b.combine(b.einsum("e b s h, e b s -> e b s h", down, b.dispatch_weights(x[1], route[0])), route[0], 2);
       },
       [=](const Tensors& x) {
         const at::Tensor up = at::silu(at::einsum("bsh,egmh->ebsgm", {x[0], x[2]}).add(x[4].view({5, 1, 1, 2, 3}))).sum(3);
         const at::Tensor down = at::einsum("ebsm,ehm->ebsh", {up, x[3]});
         const at::Tensor share = at::einsum("bsk,bske->ebs", {x[1], at::one_hot(chosen, 5).to(at::kDouble)});
         return at::einsum("ebsh,ebs->bsh", {down, share});
       }},
      {"log-sum-exp",
       {{4, 9}},
       {},
       [](Builder& b, const Values& x) { return b.sum_exp(x[0], b.row_max(x[0])); },
       [](const Tensors& x) { return x[0].sub(x[0].detach().amax(-1, true)).exp().sum(-1); }},
      {"pick",
       {{2, 6, 9}},
       {labels},
       [](Builder& b, const Values& x) { return b.pick(x[0], x[1]); },
       [](const Tensors& x) { return at::gather(x[0], -1, x[1].clamp_min(0).unsqueeze(-1)).squeeze(-1).mul(x[1].ge(0)); }},
  };
}

// The graph of sum(weight * ours(operands)), its operands as trainable states.
struct Program {
  Graph graph;
  Values operands;
  Value y, weight;
};

Program program(const Example& example) {
  Program p;
  Builder b(p.graph);
  for (std::size_t i = 0; i < example.real.size(); ++i)
    p.operands.push_back(
        p.graph.declare(ValueKind::state, fmt::format("x{}", i), {DType::fp64, example.real[i], {}}, {{"trainable", true}}));
  for (const at::Tensor& t : example.data)
    p.operands.push_back(p.graph.declare(ValueKind::input, fmt::format("x{}", p.operands.size()), {DType::i64, t.sizes().vec(), {}}));
  p.y = example.ours(b, p.operands);
  p.weight = p.graph.declare(ValueKind::input, "weight", p.graph.type(p.y));
  std::vector<std::string> dims;
  for (std::size_t d = 0; d < p.graph.type(p.y).shape.size(); ++d) dims.push_back("d" + std::to_string(d));
  const std::string all = dims.empty() ? "()" : join(dims, " ");
  b.step_sum("loss_sum", b.einsum(all + ", " + all + " -> ()", p.y, p.weight));
  p.graph.declare(ValueKind::carried, "seed", {DType::fp64, {}, {}});
  return p;
}

// fp64 rounds at 1e-16 and these sums have at most some hundred terms of order 1: a right formula is below 1e-13, a wrong one above 1e-4.
constexpr double kTolerance = 1e-10;

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const double size = b.norm().item<double>();
  return a.sizes() == b.sizes() ? a.sub(b).norm().item<double>() / (size > 0 ? size : 1) : INFINITY;
}

class Autograd : public ::testing::TestWithParam<Example> {};

}    // namespace

TEST_P(Autograd, value_and_gradients_equal_those_of_libtorch) {
  const Example& example = GetParam();
  Program p = program(example);
  for (const auto pass : {differentiate, fuse_softmax_grad, remove_dead}) p.graph = pass(std::move(p.graph), {});
  verify(p.graph, Level::l1);
  std::map<std::string, Value> gradients;
  auto& body = p.graph.nodes(Segment::first);
  for (const Node& node : body)
    if (node.op->name == "accumulate") gradients[p.graph[node.in[0]].name] = node.in[1];
  std::erase_if(body, [](const Node& node) { return node.op->name == "accumulate"; });    // it has no kernel

  std::mt19937_64 rng(1);
  Interpreter interpreter(p.graph);
  Tensors leaves;
  for (const Shape& shape : example.real) leaves.push_back(random_tensor(shape, Mode::fp64, rng).set_requires_grad(true));
  leaves.insert(leaves.end(), example.data.begin(), example.data.end());
  for (std::size_t i = 0; i < leaves.size(); ++i) interpreter.give(p.operands[i], leaves[i].detach());
  const at::Tensor weight = random_tensor(p.graph.type(p.y).shape, Mode::fp64, rng);
  interpreter.give(p.weight, weight);
  interpreter.give(p.graph.find("seed"), at::ones({}, at::kDouble));
  interpreter.run(Segment::first);

  const at::Tensor y = example.theirs(leaves);
  double worst = relative_error(interpreter[p.y], y.detach());
  EXPECT_LE(worst, kTolerance);
  y.mul(weight).sum().backward();
  for (std::size_t i = 0; i < example.real.size(); ++i) {
    const at::Tensor& ours = interpreter[gradients.at(fmt::format("x{}.grad", i))];
    const double error = relative_error(ours, leaves[i].grad());
    EXPECT_LE(error, kTolerance) << example.name << ": gradient of operand " << i;
    worst = std::max(worst, error);
  }
  RecordProperty("worst", fmt::format("{:.1e}", worst));
  if (std::getenv("SHEAF_VERBOSE")) fmt::print("{}: {:.1e}\n", example.name, worst);
}

INSTANTIATE_TEST_SUITE_P(Ops, Autograd, ::testing::ValuesIn(examples()), [](const auto& info) {
  std::string name;
  for (const char c : info.param.name) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

TEST(Autograd, every_op_with_a_gradient_is_among_the_examples) {
  std::set<std::string_view> tested;
  for (const Example& example : examples()) {
    const Program p = program(example);
    for (const Node& node : p.graph.nodes(Segment::first)) tested.insert(node.op->name);
  }
  for (const OpDef& op : all_ops()) EXPECT_TRUE(!op.grad || tested.contains(op.name)) << op.name;
}
