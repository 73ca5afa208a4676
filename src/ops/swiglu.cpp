#include "ops/parts.h"

namespace sheaf {

OpDef swiglu() {
  return {.doc = "SwiGLU (Shazeer 2020): silu(gate) up",
          .rule = ".., .. -> ..; linear up",
          .flops = [](const Attrs&, const Types& in) { return 5.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::swiglu>,
          .parts = "a = silu gate; y = mul a, up -> y",
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}}}};
}

}    // namespace sheaf
