#include "ops/parts.h"

namespace sheaf {

OpDef swiglu_grad() {
  return {.doc = "gradients of swiglu: dgate, dup",
          .rule = ".., .., .. -> .., ..; linear dy",
          .flops = [](const Attrs&, const Types& in) { return 10.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::swiglu_grad>,
          .parts = "a = silu gate; da = mul dy, up; dup = mul dy, a; dgate = silu_grad gate, da -> dgate dup",
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}}}};
}

}    // namespace sheaf
