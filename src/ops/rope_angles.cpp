#include <ATen/core/Tensor.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/sin.h>

#include "ops/builder.h"

namespace sheaf {

OpDef rope_angles() {
  return {
      .doc = "cos and sin of positions[b, s] inv_freq[j], times scaling (Su et al. 2021; scaling: YaRN's and longrope's attention factor)",
      .rule = "b s, j -> b s j, b s j",
      .dtype = [](const Attrs&, const Types& in, std::size_t) { return in[1]->dtype; },
      .no_gradient = "positions are data",
      .kernel =
          [](const Args& a) {
            const at::Tensor angles = a.in[0].to(a.in[1].scalar_type()).unsqueeze(-1).mul(a.in[1]);
            at::cos_out(a.out[0], angles).mul_(a.attrs.number("scaling"));
            at::sin_out(a.out[1], angles).mul_(a.attrs.number("scaling"));
          },
      .cases = {{.dims = {{"b", {2}}, {"s", {3}}, {"j", {4}}}, .domain = {Index("s"), Positive}, .attrs = {{"scaling", 1.25}}}}};
}

}    // namespace sheaf
