#include <ATen/core/Tensor.h>
#include <ATen/ops/where.h>

#include "ops/builder.h"

namespace sheaf {

OpDef choose() {
  return {.doc = "yes where flag is not 0, else no",
          .rule = "(), .., .. -> ..",
          .dtype = [](const Attrs&, const Types& in, std::size_t) { return in[1]->dtype; },
          .kernel = [](const Args& a) { a.out[0].copy_(at::where(a.in[0].ne(0), a.in[1], a.in[2])); },
          .exact = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Flag, Real, Real}}}};
}

}    // namespace sheaf
