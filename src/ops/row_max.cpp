#include <ATen/core/Tensor.h>
#include <ATen/ops/amax.h>

#include <limits>

#include "ops/builder.h"

namespace sheaf {

OpDef row_max() {
  return {.doc = "max over v",
          .rule = ".. v -> ..; reduce max",
          .no_gradient = "only subtracted for range: what softmax and cross-entropy yield does not depend on it",
          .kernel =
              [](const Args& a) {
                if (a.in[0].size(-1) > 0)
                  at::amax_out(a.out[0], a.in[0], {-1});
                else    // a rank without any of a small vocabulary
                  a.out[0].fill_(a.out[0].is_floating_point() ? at::Scalar(-std::numeric_limits<double>::infinity())
                                                              : at::Scalar(std::numeric_limits<std::int64_t>::min()));
              },
          .exact = true,
          .cases = {{.dims = {{"..", {2, 3}}, {"v", {7}}}, .domain = {Real}}}};
}

}    // namespace sheaf
