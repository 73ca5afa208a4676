#include "ops/parts.h"

namespace sheaf {

OpDef logits_grad() {
  return {.doc = "softmax_grad of logits in 16 bits: computed in fp32, in and out in dtype, that of x",
          .rule = ".. v, .., .., .., .. -> .. v; owner v",
          .flops = [](const Attrs&, const Types& in) { return 4.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::logits_grad>,
          .parts = "f = cast x {dtype=fp32}; g = softmax_grad f, m, ds, dp, labels; y = cast g {dtype} -> y",
          .in_place = true,
          .cases = {
              {.dims = {{"..", {2, 3}}, {"v", {7}}}, .domain = {Real, Real, Real, Real, Label("v")}, .attrs = {{"dtype", Text("fp64")}}}}};
}

}    // namespace sheaf
