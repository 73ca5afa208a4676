#include "ops/parts.h"

namespace sheaf {

OpDef softmax_sums() {
  return {.doc = "what cross-entropy wants of the logits of a token, in fp32: the largest, the sum of exp(x - largest), that of the label",
          .rule = ".. v, .. -> .., .., ..; full v",
          .dtype = [](const Attrs&, const Types&, std::size_t) { return DType::fp32; },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::softmax_sums>,
          .parts = "f = cast x {dtype=fp32}; m = row_max f; s = sum_exp f, m; p = pick f, labels -> m s p",
          .cases = {{.dims = {{"..", {2, 3}}, {"v", {7}}}, .domain = {Real, Label("v")}}}};
}

}    // namespace sheaf
