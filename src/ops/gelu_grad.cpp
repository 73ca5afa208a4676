#include <ATen/core/Tensor.h>
#include <ATen/ops/gelu_backward.h>

#include "ops/builder.h"

namespace sheaf {

OpDef gelu_grad() {
  return {.doc = "dy gelu'(x)",
          .rule = ".., .. -> ..; linear dy",
          .kernel = [](const Args& a) { at::gelu_backward_out(a.out[0], a.in[1], a.in[0], a.attrs.flag("tanh") ? "tanh" : "none"); },
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real, Real}, .attrs = {{"tanh", true}}}}};
}

}    // namespace sheaf
