#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

// Written by propagate, replaced by collectives later. Its operand and its output denote the same tensor.
OpDef reshard() {
  return {.doc = "x, elsewhere: the output's placement is where its pieces go",
          .rule = ".. -> ..; linear x",
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .grad = [](const Grad& g) -> Values { return {g.dy()}; },
          .kernel = [](const Args& a) { a.out[0].copy_(a.in[0]); },
          .exact = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}}}};
}

}    // namespace sheaf
