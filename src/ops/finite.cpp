#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

// x - x is 0 exactly for finite x.
OpDef finite() {
  return {.doc = "1 if norm and loss are finite, else 0: whether the step is committed",
          .rule = "(), () -> ()",
          .kernel = [](const Args& a) { a.out[0].copy_(a.in[0].sub(a.in[0]).eq(0).logical_and(a.in[1].sub(a.in[1]).eq(0))); },
          .cases = {{.dims = {}, .domain = {Positive, Real}}}};
}

}    // namespace sheaf
