#include <ATen/core/Tensor.h>
#include <ATen/ops/dot.h>

#include "ops/builder.h"

namespace sheaf {

OpDef sumsq() {
  return {.doc = "sum of x^2, in fp32 for low-precision x",
          .rule = ".. -> ()",
          .dtype = [](const Attrs&, const Types& in, std::size_t) { return size_bytes(in[0]->dtype) == 2 ? DType::fp32 : in[0]->dtype; },
          .flops = [](const Attrs&, const Types& in) { return 2.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .kernel =
              [](const Args& a) {
                const at::Tensor x = a.in[0].flatten().to(a.out[0].scalar_type());
                a.out[0].copy_(at::dot(x, x));
              },
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}}}};
}

}    // namespace sheaf
