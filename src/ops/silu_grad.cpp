#include <ATen/core/Tensor.h>
#include <ATen/ops/silu_backward.h>

#include "ops/builder.h"

namespace sheaf {

OpDef silu_grad() {
  return {.doc = "dy silu'(x)",
          .rule = ".., .. -> ..; linear dy",
          .kernel = [](const Args& a) { at::silu_backward_out(a.out[0], a.in[1], a.in[0]); },
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real, Real}}}};
}

}    // namespace sheaf
