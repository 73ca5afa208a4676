#include <ATen/core/Tensor.h>
#include <ATen/ops/gelu.h>

#include "ops/builder.h"

namespace sheaf {

OpDef gelu() {
  return {.doc = "x Phi(x), or its tanh approximation (Hendrycks, Gimpel 2016)",
          .rule = ".. -> ..",
          .grad = [](const Grad& g) -> Values { return {g.b.gelu_grad(g.x(), g.dy(), g.attrs.flag("tanh"))}; },
          .kernel = [](const Args& a) { at::gelu_out(a.out[0], a.in[0], a.attrs.flag("tanh") ? "tanh" : "none"); },
          .in_place = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}, .attrs = {{"tanh", true}}},
                    {.dims = {{"..", {3, 5}}}, .domain = {Real}, .attrs = {{"tanh", false}}}}};
}

}    // namespace sheaf
