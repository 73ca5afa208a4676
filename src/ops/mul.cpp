#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>

#include "ops/builder.h"

namespace sheaf {

OpDef mul() {
  return {.doc = "x y, element by element",
          .rule = ".., .. -> ..; linear x y",
          .grad = [](const Grad& g) -> Values {
            return {g.wanted[0] ? Value(g.b.mul(g.dy(), g.x(1))) : Value{}, g.wanted[1] ? Value(g.b.mul(g.dy(), g.x(0))) : Value{}};
          },
          .kernel = [](const Args& a) { at::mul_out(a.out[0], a.in[0], a.in[1]); },
          .exact = true,
          .in_place = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real, Real}}}};
}

}    // namespace sheaf
