#include "ops/parts.h"

namespace sheaf {

OpDef geglu_grad() {
  return {.doc = "gradients of geglu: dgate, dup",
          .rule = ".., .., .. -> .., ..; linear dy",
          .flops = [](const Attrs&, const Types& in) { return 10.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::geglu_grad>,
          .parts = "a = gelu gate {tanh}; da = mul dy, up; dup = mul dy, a; dgate = gelu_grad gate, da {tanh} -> dgate dup",
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}, .attrs = {{"tanh", true}}}}};
}

}    // namespace sheaf
