#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>

#include "ops/builder.h"

namespace sheaf {

OpDef scale() {
  return {.doc = "factor x",
          .rule = ".. -> ..; linear x",
          .grad = [](const Grad& g) -> Values { return {g.b.scale(g.dy(), g.attrs.number("factor"))}; },
          .kernel = [](const Args& a) { at::mul_out(a.out[0], a.in[0], at::Scalar(a.attrs.number("factor"))); },
          .in_place = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}, .attrs = {{"factor", 0.75}}}}};
}

}    // namespace sheaf
