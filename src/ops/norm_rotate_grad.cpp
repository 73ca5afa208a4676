#include "ops/parts.h"

namespace sheaf {

OpDef norm_rotate_grad() {
  return {.doc = "gradients of norm_rotate: dx, dw",
          .rule = "b s .. d, d, b s .. d, b s j, b s j -> b s .. d, d; full d j; linear dy",
          .dtype = [](const Attrs&, const Types& in,
                      std::size_t i) { return i == 1 && size_bytes(in[0]->dtype) == 2 ? DType::fp32 : in[0]->dtype; },
          .flops = [](const Attrs&, const Types& in) { return 13.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::norm_rotate_grad>,
          .parts = "dn = rotate dy, cos, sin {interleaved, inverse=true}; dx dw = rms_norm_grad x, w, dn {eps} -> dx dw",
          .cases = {{.dims = {{"b", {2}}, {"s", {3}}, {"..", {2, 2}}, {"d", {6}}, {"j", {3}}},
                     .domain = {Real},
                     .attrs = {{"eps", 1e-5}, {"interleaved", false}}}}};
}

}    // namespace sheaf
