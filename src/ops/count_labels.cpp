#include <ATen/core/Tensor.h>
#include <ATen/ops/sum.h>

#include "ops/builder.h"

namespace sheaf {

OpDef count_labels() {
  return {.doc = "number of labels >= 0: the tokens that count",
          .rule = ".. -> ()",
          .dtype = [](const Attrs&, const Types&, std::size_t) { return DType::i64; },
          .kernel = [](const Args& a) { a.out[0].copy_(a.in[0].ge(0).sum()); },
          .exact = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Label("..0")}}}};
}

}    // namespace sheaf
