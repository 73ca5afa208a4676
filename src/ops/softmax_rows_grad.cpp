#include <ATen/core/Tensor.h>
#include <ATen/ops/_softmax_backward_data.h>

#include "ops/builder.h"

namespace sheaf {

OpDef softmax_rows_grad() {
  return {.doc = "y (dy - sum over d of dy y): gradient of softmax from its output",
          .rule = ".. d, .. d -> .. d; full d; linear dy",
          .flops = [](const Attrs&, const Types& in) { return 4.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .kernel = [](const Args& a) { at::_softmax_backward_data_out(a.out[0], a.in[1], a.in[0], -1, a.in[0].scalar_type()); },
          .cases = {{.dims = {{"..", {2, 3}}, {"d", {5}}}, .domain = {Real, Real}}}};
}

}    // namespace sheaf
