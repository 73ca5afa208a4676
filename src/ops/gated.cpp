#include <ATen/core/Tensor.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>

#include "base/error.h"
#include "base/text.h"
#include "mesh/rule.h"
#include "ops/builder.h"
#include "ops/gated_math.h"

namespace sheaf {

std::int64_t gate_dim(const Attrs& attrs) {
  const Rule rule = Rule::parse(attrs.text("rule"));
  SHEAF_CHECK(has(rule.in[0], "g"), "gated: no factor g in '{}'", attrs.text("rule"));
  return dim_of(rule.in[0], "g");
}

GatedLetters gated_letters(const Attrs& attrs) {
  const Rule rule = Rule::parse(attrs.text("rule"));
  Rule::Factors rows = rule.out.at(0);
  SHEAF_CHECK(!rows.empty(), "gated: a scalar in '{}'", attrs.text("rule"));
  rows.pop_back();
  Rule::Factors bias = rule.in[0];
  std::erase_if(bias, [](const std::string& f) { return f == "b" || f == "s"; });
  return {join(rule.in[0], " "), join(rule.out[0], " "), join(rows, " "), join(bias, " ")};
}

static at::Tensor activated(const at::Tensor& x, const Attrs& attrs) {
  const std::string& name = attrs.text("activation");
  if (name == "silu") return at::silu(x);
  if (name == "relu") return at::relu(x);
  if (name == "gelu" || name == "gelu_tanh") return at::gelu(x, name == "gelu" ? "none" : "tanh");
  if (is_clamped_swiglu(attrs)) return x.mul(x.mul(kSwigluAlpha).sigmoid_());
  user_error("gated: no activation '{}'; known: silu, gelu, gelu_tanh, relu, clamped_swiglu", name);
}

OpDef gated() {
  return {.doc =
              "act(gate) up for the pair (gate, up) of dim g; limit > 0: gate <= limit, |up| <= limit first; clamped_swiglu: "
              "(up + 1) gate sigmoid(1.702 gate)",
          .rule_of = [](const Attrs& attrs, const Types&) { return attrs.text("rule") + "; full g"; },
          .flops = [](const Attrs&, const Types& in) { return 2.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .grad = [](const Grad& g) -> Values {
            return {g.b.gated_grad(g.x(), g.dy(), g.attrs.text("rule"), g.attrs.text("activation"), g.attrs.number("limit"))};
          },
          .kernel =
              [](const Args& a) {
                const std::int64_t g = gate_dim(a.attrs);
                const double limit = a.attrs.number("limit");
                at::Tensor gate = a.in[0].select(g, 0), up = a.in[0].select(g, 1);
                if (limit > 0) gate = gate.clamp_max(limit), up = up.clamp(-limit, limit);
                if (is_clamped_swiglu(a.attrs)) up = up.add(1);
                at::mul_out(a.out[0], activated(gate, a.attrs), up);
              },
          .cases = {{.dims = {{"e", {3}}, {"b", {2}}, {"s", {2}}, {"g", {2}}, {"m", {5}}},
                     .domain = {Real},
                     .attrs = {{"rule", Text("e b s g m -> e b s m")}, {"activation", Text("silu")}, {"limit", 0.0}}},
                    {.dims = {{"e", {2}}, {"b", {2}}, {"s", {3}}, {"g", {2}}, {"m", {4}}},
                     .domain = {Real},
                     .attrs = {{"rule", Text("e b s m g -> e b s m")}, {"activation", Text("clamped_swiglu")}, {"limit", 0.75}}},
                    {.dims = {{"t", {3}}, {"g", {2}}, {"m", {4}}},
                     .domain = {Real},
                     .attrs = {{"rule", Text("t g m -> t m")}, {"activation", Text("gelu_tanh")}, {"limit", 1.25}}}}};
}

}    // namespace sheaf
