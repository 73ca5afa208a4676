#include "ops/parts.h"

namespace sheaf {

OpDef biased_rotate() {
  return {
      .doc = "x + bias, rotated: what becomes of a query or a key",
      .rule = "b s .. d, .. d, b s j, b s j -> b s .. d; full d j; add x bias",
      .flops = [](const Attrs&, const Types& in) { return 4.0 * static_cast<double>(num_elements(in[0]->shape)); },
      .no_gradient = "written after differentiation",
      .kernel = parts_kernel<OpId::biased_rotate>,
      .parts = "h = add x, bias; y = rotate h, cos, sin {interleaved, inverse=false} -> y",
      .in_place = true,
      .cases = {
          {.dims = {{"b", {2}}, {"s", {3}}, {"..", {2, 2}}, {"d", {6}}, {"j", {3}}}, .domain = {Real}, .attrs = {{"interleaved", false}}}}};
}

}    // namespace sheaf
