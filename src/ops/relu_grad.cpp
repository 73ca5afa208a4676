#include <ATen/core/Tensor.h>
#include <ATen/ops/threshold_backward.h>

#include "ops/builder.h"

namespace sheaf {

OpDef relu_grad() {
  return {.doc = "dy where x > 0, else 0",
          .rule = ".., .. -> ..; linear dy",
          .kernel = [](const Args& a) { at::threshold_backward_out(a.out[0], a.in[1], a.in[0], 0); },
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real, Real}}}};
}

}    // namespace sheaf
