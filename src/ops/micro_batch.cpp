#include <ATen/core/Tensor.h>
#include <ATen/ops/index_select.h>

#include "ops/builder.h"

namespace sheaf {

// The index is read on the device, so one captured body serves every micro-batch.
OpDef micro_batch() {
  return {.doc = "the rows of one micro-batch: x[index]",
          .rule = "m .., () -> ..; full m",
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .kernel =
              [](const Args& a) {
                at::Tensor out = a.out[0].unsqueeze(0);
                at::index_select_out(out, a.in[0], 0, a.in[1].reshape({1}).to(at::kLong));
              },
          .exact = true,
          .cases = {{.dims = {{"m", {3}}, {"..", {2, 5}}}, .domain = {Real, Index("m")}}}};
}

}    // namespace sheaf
