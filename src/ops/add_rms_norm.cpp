#include "ops/parts.h"

namespace sheaf {

OpDef add_rms_norm() {
  return {.doc = "x + delta, and its rms_norm",
          .rule = ".. d, .. d, d -> .. d, .. d; full d",
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::add_rms_norm>,
          .parts = "y = add x, delta; n = rms_norm y, w {eps} -> y n",
          .cases = {{.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Real}, .attrs = {{"eps", 1e-5}}}}};
}

}    // namespace sheaf
