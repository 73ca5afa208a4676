#include <ATen/core/Tensor.h>
#include <ATen/ops/div.h>

#include "ops/builder.h"

namespace sheaf {

OpDef nll_grad() {
  return {.doc = "gradients of nll: dm = dy, ds = dy / s, dp = -dy, 0 where the label is < 0",
          .rule = ".., .., .., .., .. -> .., .., ..; linear dy",
          .kernel =
              [](const Args& a) {
                a.out[0].copy_(a.in[4]).masked_fill_(a.in[3].lt(0), 0);
                at::div_out(a.out[1], a.out[0], a.in[1]);
                a.out[2].copy_(a.out[0]).neg_();
              },
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real, Positive, Real, Label("..0"), Real}}}};
}

}    // namespace sheaf
