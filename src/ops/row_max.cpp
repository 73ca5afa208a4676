#include <ATen/core/Tensor.h>
#include <ATen/ops/amax.h>

#include "ops/builder.h"

namespace sheaf {

OpDef row_max() {
  return {.doc = "max over v",
          .rule = ".. v -> ..; reduce max",
          .no_gradient = "only subtracted for range: what softmax and cross-entropy yield does not depend on it",
          .kernel = [](const Args& a) { at::amax_out(a.out[0], a.in[0], {-1}); },
          .exact = true,
          .cases = {{.dims = {{"..", {2, 3}}, {"v", {7}}}, .domain = {Real}}}};
}

}    // namespace sheaf
