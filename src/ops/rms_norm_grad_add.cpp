#include "ops/parts.h"

namespace sheaf {

OpDef rms_norm_grad_add() {
  return {.doc = "gradients of rms_norm, of which that of x is added to dsum, which reaches x another way",
          .rule = ".. d, d, .. d, .. d -> .. d, d; full d",
          .dtype = [](const Attrs&, const Types& in,
                      std::size_t i) { return i == 1 && size_bytes(in[0]->dtype) == 2 ? DType::fp32 : in[0]->dtype; },
          .flops = [](const Attrs&, const Types& in) { return 11.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::rms_norm_grad_add>,
          .parts = "d dw = rms_norm_grad x, w, dy {eps}; dx = add dsum, d -> dx dw",
          .cases = {{.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Real}, .attrs = {{"eps", 1e-5}}}}};
}

}    // namespace sheaf
