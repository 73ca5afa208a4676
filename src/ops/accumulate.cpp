#include "ops/builder.h"

namespace sheaf {

// Written by models and by differentiate; the pass micro_batches replaces it, so it has no kernel.
OpDef accumulate() {
  return {.doc = "target += value, over the micro-batches of a step (target: a carried value)",
          .rule = ".., .. ->; add target value",
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real, Real}}}};
}

}    // namespace sheaf
