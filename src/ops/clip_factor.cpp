#include <ATen/core/Tensor.h>
#include <ATen/ops/ones_like.h>

#include "ops/builder.h"

namespace sheaf {

OpDef clip_factor() {
  return {.doc = "min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; 1 if max_norm is 0",
          .rule = "() -> ()",
          .kernel =
              [](const Args& a) {
                const double c = a.attrs.number("max_norm");
                if (c == 0)
                  a.out[0].fill_(1);
                else
                  a.out[0].copy_(a.in[0].add(1e-6).reciprocal_().mul_(c).clamp_max_(1));
              },
          .cases = {{.dims = {}, .domain = {Positive}, .attrs = {{"max_norm", 0.5}}},
                    {.dims = {}, .domain = {Positive}, .attrs = {{"max_norm", 0.0}}}}};
}

}    // namespace sheaf
