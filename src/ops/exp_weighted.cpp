#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>

#include "ops/builder.h"

namespace sheaf {

OpDef exp_weighted() {
  return {.doc = "ds exp(x - m): gradient of sum_exp",
          .rule = ".. v, .., .. -> .. v; linear ds",
          .kernel = [](const Args& a) { at::mul_out(a.out[0], a.in[0].sub(a.in[1].unsqueeze(-1)).exp_(), a.in[2].unsqueeze(-1)); },
          .cases = {{.dims = {{"..", {2, 3}}, {"v", {7}}}, .domain = {Real, Real, Real}}}};
}

}    // namespace sheaf
