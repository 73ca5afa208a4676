#include <ATen/core/Tensor.h>
#include <ATen/ops/sub.h>

#include "ops/builder.h"

namespace sheaf {

// With t = max(sum + eps, floor):  dx = dy / t - [sum + eps >= floor] (sum over d of dy x) / t^2.
OpDef normalize_grad() {
  return {.doc = "gradient of normalize",
          .rule = ".. d, .. d -> .. d; full d; linear dy",
          .flops = [](const Attrs&, const Types& in) { return 6.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .kernel =
              [](const Args& a) {
                const double floor = a.attrs.number("floor");
                const at::Tensor &x = a.in[0], &dy = a.in[1];
                const at::Tensor sum = x.sum(-1, true).add_(a.attrs.number("eps")), t = sum.clamp_min(floor);
                const at::Tensor through = dy.mul(x).sum(-1, true).div_(t.square()).masked_fill_(sum.lt(floor), 0);
                at::sub_out(a.out[0], dy.div(t), through);
              },
          .cases = {{.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Positive, Real}, .attrs = {{"eps", 0.25}, {"floor", 0.0}}},
                    {.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Positive, Real}, .attrs = {{"eps", 0.0}, {"floor", 6.0}}}}};
}

}    // namespace sheaf
