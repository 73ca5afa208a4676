#include <ATen/core/Tensor.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/threshold_backward.h>

#include "ops/builder.h"
#include "ops/gated_math.h"

namespace sheaf {

struct Activated {
  at::Tensor y, dx;    // act(x); d act'(x)
};

static Activated activated_with_gradient(const at::Tensor& x, const at::Tensor& d, const Attrs& attrs) {
  const std::string& name = attrs.text("activation");
  if (name == "silu") return {at::silu(x), at::silu_backward(d, x)};
  if (name == "relu") return {at::relu(x), at::threshold_backward(d, x, 0)};
  if (is_clamped_swiglu(attrs)) {    // with s = sigmoid(a x):  (x s)' = s + a x s (1 - s)
    const at::Tensor s = x.mul(kSwigluAlpha).sigmoid_(), y = x.mul(s);
    return {y, d.mul(s.add(y.sub(y.mul(s)), kSwigluAlpha))};
  }
  const char* const approximate = name == "gelu" ? "none" : "tanh";
  return {at::gelu(x, approximate), at::gelu_backward(d, x, approximate)};
}

// Where a clamp holds a value, nothing passes; at the bound itself it does, as in torch.
OpDef gated_grad() {
  return {.doc = "gradient of gated",
          .rule_of =
              [](const Attrs& attrs, const Types&) {
                const auto [x, y, rows, bias] = gated_letters(attrs);
                return x + ", " + y + " -> " + x + "; full g; linear dy";
              },
          .flops = [](const Attrs&, const Types& in) { return 5.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .kernel =
              [](const Args& a) {
                const std::int64_t g = gate_dim(a.attrs);
                const double limit = a.attrs.number("limit");
                const at::Tensor gate_given = a.in[0].select(g, 0), up_given = a.in[0].select(g, 1), &dy = a.in[1];
                at::Tensor gate = gate_given, up = up_given;
                if (limit > 0) gate = gate.clamp_max(limit), up = up.clamp(-limit, limit);
                if (is_clamped_swiglu(a.attrs)) up = up.add(1);
                const auto [y, d_gate] = activated_with_gradient(gate, dy.mul(up), a.attrs);
                at::Tensor dgate = a.out[0].select(g, 0), dup = a.out[0].select(g, 1);
                dgate.copy_(d_gate);
                dup.copy_(dy.mul(y));
                if (limit > 0) {
                  dgate.masked_fill_(gate_given.gt(limit), 0);
                  dup.masked_fill_(up_given.abs().gt(limit), 0);
                }
              },
          .cases = {{.dims = {{"e", {3}}, {"b", {2}}, {"s", {2}}, {"g", {2}}, {"m", {5}}},
                     .domain = {Real, Real},
                     .attrs = {{"rule", Text("e b s g m -> e b s m")}, {"activation", Text("silu")}, {"limit", 0.0}}},
                    {.dims = {{"e", {2}}, {"b", {2}}, {"s", {3}}, {"g", {2}}, {"m", {4}}},
                     .domain = {Real, Real},
                     .attrs = {{"rule", Text("e b s m g -> e b s m")}, {"activation", Text("clamped_swiglu")}, {"limit", 0.75}}}}};
}

}    // namespace sheaf
