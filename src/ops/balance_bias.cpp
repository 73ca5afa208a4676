#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

OpDef balance_bias() {
  return {.doc = "bias + rate sign(mean load - load): experts with more tokens than the mean are chosen less (Wang et al. 2024)",
          .rule = "e, e -> e; full e",
          .no_gradient = "the end of a step",
          .kernel =
              [](const Args& a) {
                const at::Tensor load = a.in[1].to(a.in[0].scalar_type());
                a.out[0].copy_(a.in[0].add(load.mean().sub(load).sign(), a.attrs.number("rate")));
              },
          .cases = {{.dims = {{"e", {7}}}, .domain = {Real, Real}, .attrs = {{"rate", 0.25}}}}};
}

}    // namespace sheaf
