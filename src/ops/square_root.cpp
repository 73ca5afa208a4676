#include <ATen/core/Tensor.h>
#include <ATen/ops/sqrt.h>

#include "ops/builder.h"

namespace sheaf {

OpDef square_root() {
  return {.doc = "sqrt(x)",
          .rule = ".. -> ..",
          .kernel = [](const Args& a) { at::sqrt_out(a.out[0], a.in[0]); },
          .cases = {{.dims = {{"..", {3}}}, .domain = {Positive}}}};
}

}    // namespace sheaf
