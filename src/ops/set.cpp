#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

// The only op with an effect. Where it can, the memory planner lets the value's producer write into the target; then nothing is copied.
OpDef set() {
  return {.doc = "target := value (target: a state, in the epilogue, or a carried value)",
          .rule = ".., .. ->",
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .kernel =
              [](const Args& a) {
                if (a.in[0].data_ptr() != a.in[1].data_ptr()) a.in[0].copy_(a.in[1]);
              },
          .exact = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real, Real}}}};
}

}    // namespace sheaf
