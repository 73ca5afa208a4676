#include "ops/parts.h"

namespace sheaf {

OpDef norm_rotate() {
  return {.doc = "rms_norm of every head, then its rotation: what becomes of a query or a key",
          .rule = "b s .. d, d, b s j, b s j -> b s .. d; full d j",
          .flops = [](const Attrs&, const Types& in) { return 7.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::norm_rotate>,
          .parts = "n = rms_norm x, w {eps}; y = rotate n, cos, sin {interleaved, inverse=false} -> y",
          .cases = {{.dims = {{"b", {2}}, {"s", {3}}, {"..", {2, 2}}, {"d", {6}}, {"j", {3}}},
                     .domain = {Real},
                     .attrs = {{"eps", 1e-5}, {"interleaved", false}}}}};
}

}    // namespace sheaf
