#include <ATen/core/Tensor.h>
#include <ATen/ops/sigmoid_backward.h>

#include "ops/builder.h"

namespace sheaf {

OpDef sigmoid_grad() {
  return {.doc = "dy y (1 - y): gradient of sigmoid from its output",
          .rule = ".., .. -> ..; linear dy",
          .kernel = [](const Args& a) { at::sigmoid_backward_out(a.out[0], a.in[1], a.in[0]); },
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Fraction, Real}}}};
}

}    // namespace sheaf
