#include <ATen/core/Tensor.h>
#include <ATen/ops/clamp.h>

#include "ops/builder.h"

namespace sheaf {

OpDef clamp() {
  return {.doc = "min(max(x, low), high)",
          .rule = ".. -> ..",
          .grad = [](const Grad& g) -> Values { return {g.b.clamp_grad(g.x(), g.dy(), g.attrs.number("low"), g.attrs.number("high"))}; },
          .kernel = [](const Args& a) { at::clamp_out(a.out[0], a.in[0], a.attrs.number("low"), a.attrs.number("high")); },
          .in_place = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}, .attrs = {{"low", -0.75}, {"high", 0.5}}}}};
}

}    // namespace sheaf
