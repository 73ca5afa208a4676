#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

OpDef inverse_count() {
  return {.doc = "1 / max(n, 1), fp32",
          .rule = "() -> ()",
          .dtype = [](const Attrs&, const Types&, std::size_t) { return DType::fp32; },
          .kernel = [](const Args& a) { a.out[0].copy_(a.in[0].clamp_min(1).to(at::kDouble).reciprocal()); },
          .cases = {{.dims = {}, .domain = {Count}}}};
}

}    // namespace sheaf
