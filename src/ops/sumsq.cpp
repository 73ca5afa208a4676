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
                constexpr std::int64_t kMost = std::int64_t{1} << 30;    // BLAS counts in 32 bits
                a.out[0].copy_(at::dot(x.slice(0, 0, kMost), x.slice(0, 0, kMost)));
                for (std::int64_t begin = kMost; begin < x.numel(); begin += kMost) {
                  const at::Tensor part = x.slice(0, begin, begin + kMost);
                  a.out[0].add_(at::dot(part, part));
                }
              },
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}}}};
}

}    // namespace sheaf
