#include <ATen/core/Tensor.h>
#include <ATen/ops/mul.h>

#include "ops/builder.h"

namespace sheaf {

OpDef clamp_grad() {
  return {.doc = "dy where low <= x <= high, else 0",
          .rule = ".., .. -> ..; linear dy",
          .kernel =
              [](const Args& a) {
                const at::Tensor inside = a.in[0].ge(a.attrs.number("low")).logical_and_(a.in[0].le(a.attrs.number("high")));
                at::mul_out(a.out[0], a.in[1], inside);
              },
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real, Real}, .attrs = {{"low", -0.75}, {"high", 0.5}}}}};
}

}    // namespace sheaf
