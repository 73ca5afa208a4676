#include "ops/parts.h"

namespace sheaf {

OpDef geglu() {
  return {.doc = "GEGLU (Shazeer 2020): gelu(gate) up",
          .rule = ".., .. -> ..; linear up",
          .flops = [](const Attrs&, const Types& in) { return 5.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::geglu>,
          .parts = "a = gelu gate {tanh}; y = mul a, up -> y",
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}, .attrs = {{"tanh", true}}}}};
}

}    // namespace sheaf
