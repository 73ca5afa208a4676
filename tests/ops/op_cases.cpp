#include "ops/op_cases.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"
#include "ops/aten.h"
#include "ops/builder.h"
#include "ops/routing.h"
#include "runtime/interpret.h"

namespace sheaf::testing {

at::Tensor random_tensor(const Shape& shape, Mode mode, std::mt19937_64& rng) {
  at::Tensor t = at::empty(shape, mode == Mode::integer ? at::kLong : at::kDouble);
  std::normal_distribution<double> normal;
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    if (mode == Mode::integer)
      t.data_ptr<std::int64_t>()[i] = static_cast<std::int64_t>(rng());
    else
      t.data_ptr<double>()[i] = normal(rng);
  }
  return t;
}

// Dims of each operand from the case: the op's rule names its factors, `dims` gives their extents.
static std::vector<Shape> operand_shapes(const OpDef& op, const Case& c, std::size_t num_operands) {
  Rule rule;
  if (op.rule_of && op.attributes.size() && op.attributes[0] == "rule")
    rule = Rule::parse(op.rule_of(c.attrs, Types(num_operands)));
  else if (!op.rule_of)
    rule = Rule::parse(op.rule);
  if (op.name == "grouped_einsum") rule.in.push_back({"e", "b", "s"});    // its last operand is not in the attribute
  std::vector<Shape> shapes(num_operands);
  std::size_t next = 0;
  for (std::size_t i = 0; i < num_operands; ++i) {
    if (std::find(c.absent.begin(), c.absent.end(), i) != c.absent.end()) continue;
    if (rule.in.empty()) {    // variadic or typed: every dim of the case that belongs to the operand, or all of them
      for (const auto& [factor, extents] : c.dims)
        if (!factor.starts_with("x") || factor.starts_with("x" + std::to_string(i)))
          shapes[i].insert(shapes[i].end(), extents.begin(), extents.end());
      continue;
    }
    for (const std::string& factor : rule.in[next])
      for (const auto& [name, extents] : c.dims)
        if (name == factor) shapes[i].insert(shapes[i].end(), extents.begin(), extents.end());
    ++next;
  }
  return shapes;
}

// Ops whose rule depends on which operands are present, or on how many dims they have: the factors of all their operands. One that a case
// does not size is no dim there.
static std::vector<Shape> shapes_by_names(const Case& c, std::string_view operands) {
  std::vector<Shape> shapes;
  for (const Rule::Factors& factors : Rule::parse(std::string(operands) + " ->").in) {
    shapes.emplace_back();
    for (const std::string& factor : factors)
      for (const auto& [name, extents] : c.dims)
        if (name == factor) shapes.back().insert(shapes.back().end(), extents.begin(), extents.end());
  }
  return shapes;
}
constexpr std::pair<std::string_view, std::string_view> kOperands[] = {
    {"attention", "b s hk r d, b u hk d, b u hk e, b c, hk r"},
    {"attention_grad", "b s hk r d, b u hk d, b u hk e, b s hk r e, b s hk r, b s hk r e, b c, hk r"},
    {"rms_norm", ".. h r d, h r d"},
    {"rms_norm_grad", ".. h r d, h r d, .. h r d"},
};

static std::int64_t extent_in(const Case& c, std::string_view factor) {
  for (const auto& [name, extents] : c.dims)
    if (name == factor) return extents[0];
  return 0;
}
static bool is_routed(const Case& c) {
  return std::any_of(c.domain.begin(), c.domain.end(), [](const Domain& d) { return d.kind >= Domain::Kind::routed; });
}

// The whole form of `slot`: k distinct experts for every token, the first ones more often, the last one never.
static at::Tensor random_choice(std::int64_t e, std::int64_t b, std::int64_t s, std::int64_t k, std::mt19937_64& rng) {
  at::Tensor slot = at::zeros({e, b, s}, at::kLong);
  for (std::int64_t t = 0; t < b * s; ++t)
    for (std::int64_t j = 1; j <= k;) {
      const auto from = static_cast<std::int64_t>(rng() % static_cast<std::uint64_t>(e - 1)),
                 expert = std::min(from, static_cast<std::int64_t>(rng() % static_cast<std::uint64_t>(e - 1)));
      std::int64_t& at = slot.view({e, b * s}).select(0, expert).data_ptr<std::int64_t>()[t];
      if (at == 0) at = j++;
    }
  return slot;
}

Call make_call(const OpDef& op, const Case& c, Mode mode, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  const std::size_t n = std::max(op.operands.size(), op.rule_of && op.operands.size() == 1 ? c.domain.size() : op.operands.size());
  std::vector<Shape> shapes;
  for (const auto& [name, operands] : kOperands)
    if (op.name == name) shapes = shapes_by_names(c, operands);
  if (shapes.empty()) shapes = operand_shapes(op, c, n);
  if (op.name == "add") shapes[1].erase(shapes[1].begin());    // the bias form; equal shapes are covered by add_n and the models

  Call call{&op, c.attrs, {}, {}, std::vector<at::Tensor>(n), {}, std::vector<bool>(n)};
  const std::int64_t choices = extent_in(c, "k");
  const at::Tensor chosen =
      is_routed(c) ? random_choice(extent_in(c, "e"), extent_in(c, "b"), extent_in(c, "s"), choices, rng) : at::Tensor();
  Types types(n);
  call.in_types.reserve(n);
  const auto extent_of = [&](const std::string& factor) {
    for (const auto& [name, extents] : c.dims) {
      if (name == factor) return extents[0];
      if (name == ".." && factor == "..0") return extents[0];
    }
    SHEAF_CHECK(false, "{}: the domain names factor '{}', which the case does not size", op.name, factor);
  };
  for (std::size_t i = 0; i < n; ++i) {
    if (std::find(c.absent.begin(), c.absent.end(), i) != c.absent.end()) continue;
    const Domain& domain = c.domain[std::min(i, c.domain.size() - 1)];
    at::Tensor t = random_tensor(shapes[i], mode, rng);
    const auto draw = [&](std::int64_t low, std::int64_t high, bool ignored) {
      t = at::empty(shapes[i], at::kLong);
      for (std::int64_t e = 0; e < t.numel(); ++e) {
        const std::int64_t x = low + static_cast<std::int64_t>(rng() % static_cast<std::uint64_t>(high - low));
        t.data_ptr<std::int64_t>()[e] = ignored && rng() % 4 == 0 ? -100 : x;
      }
    };
    switch (domain.kind) {
      case Domain::Kind::real:
        break;
      case Domain::Kind::positive:
        if (mode == Mode::fp64) t = t.abs().add(0.5);
        break;
      case Domain::Kind::fraction:    // inside (0, 1)
        if (mode == Mode::fp64) t = t.sigmoid();
        break;
      case Domain::Kind::index:
        draw(0, extent_of(domain.factor), false);
        break;
      case Domain::Kind::label:
        draw(0, extent_of(domain.factor), true);
        break;
      case Domain::Kind::ends:
        draw(0, extent_of(domain.factor) + 1, false);
        t = std::get<0>(at::sort(t, -1));
        break;
      case Domain::Kind::count:
        draw(0, 9, false);
        break;
      case Domain::Kind::routed:
        t = where_chosen(t, chosen);
        break;
      case Domain::Kind::slot:
        t = chosen;
        break;
      case Domain::Kind::expert:
        t = chosen.gt(0).to(at::kLong);
        break;
      case Domain::Kind::choice:
        t = std::get<1>(chosen.sort(0, true)).narrow(0, 0, choices).flip(0).permute({1, 2, 0}).contiguous();
        break;
      case Domain::Kind::flag:
        t = at::zeros(shapes[i], t.options()).add(static_cast<double>(rng() % 2)).to(t.scalar_type());
        break;
    }
    call.in[i] = t;
    call.real[i] = domain.kind == Domain::Kind::real || domain.kind == Domain::Kind::positive || domain.kind == Domain::Kind::flag ||
                   domain.kind == Domain::Kind::routed;
    call.present.push_back(i);
    const bool integral = t.scalar_type() == at::kLong;
    const bool routed = domain.kind == Domain::Kind::routed || domain.kind == Domain::Kind::slot || domain.kind == Domain::Kind::expert;
    call.in_types.push_back({integral ? DType::i64 : DType::fp64, shapes[i], {}, routed ? choices : 0});
    types[i] = &call.in_types.back();
  }
  call.rule = rule_for(op, call.attrs, types);
  return call;
}

std::vector<at::Tensor> Call::run_on(const std::vector<at::Tensor>& tensors, std::int64_t owner_begin, Mode mode) const {
  std::vector<Type> local = in_types;
  Types types(tensors.size());
  for (std::size_t i = 0; i < present.size(); ++i) {
    local[i].shape = tensors[present[i]].sizes().vec();
    types[present[i]] = &local[i];
  }
  std::vector<at::Tensor> out;
  for (const Type& type : infer(*op, attrs, types))
    out.push_back(at::empty(type.shape, mode == Mode::integer ? at::kLong : scalar_type(type.dtype)));
  const Args args{tensors, out, attrs, owner_begin};
  if (mode == Mode::integer)
    integer_kernel(*op, rule, args);
  else
    op->meaning ? op->meaning(args) : op->kernel(args);
  return out;
}

GradientGraph gradient_graph(const Call& call) {
  const OpDef& op = *call.op;
  GradientGraph g;
  Builder b(g.graph);
  g.in.resize(call.in.size());
  g.wanted = call.real;
  for (std::size_t p = 0; p < call.present.size(); ++p) {
    const std::size_t i = call.present[p];
    g.in[i] = g.graph.declare(ValueKind::input, "x" + std::to_string(i), call.in_types[p]);
  }
  g.out = b.call(op, g.in, call.attrs);
  g.dout.resize(g.out.size());
  for (std::size_t o = 0; o < std::min(g.out.size(), op.grad_outputs); ++o)
    g.dout[o] = g.graph.declare(ValueKind::input, "dy" + std::to_string(o), g.graph.type(g.out[o]));
  g.gradients = op.grad(Grad{b, g.in, g.out, g.dout, call.attrs, g.wanted});
  SHEAF_CHECK(g.gradients.size() == g.in.size(), "{}: {} gradients for {} operands", op.name, g.gradients.size(), g.in.size());
  verify(g.graph, Level::l1);
  return g;
}

std::vector<Param> all_cases() {
  std::vector<Param> params;
  for (const OpDef& op : all_ops()) {
    std::size_t index = 0;
    for (const Case& c : op.cases) params.push_back({&op, &c, index++});
  }
  return params;
}

std::string param_name(const ::testing::TestParamInfo<Param>& info) { return fmt::format("{}_{}", info.param.op->name, info.param.index); }

}    // namespace sheaf::testing
