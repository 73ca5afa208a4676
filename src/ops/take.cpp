#include <ATen/core/Tensor.h>
#include <ATen/ops/gather.h>

#include "ops/builder.h"

namespace sheaf {

OpDef take() {
  return {.doc = "y[.., j] = x[.., ids[.., j]]",
          .rule = ".. e, .. k -> .. k; full e; linear x",
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .grad = [](const Grad& g) -> Values {
            return {g.b.put(g.dy(), g.x(1), g.b.type(g.x()).shape.back()), {}};
          },
          .no_gradient = "ids: a decision",
          .kernel = [](const Args& a) { at::gather_out(a.out[0], a.in[0], -1, a.in[1].to(at::kLong)); },
          .exact = true,
          .cases = {{.dims = {{"..", {2, 3}}, {"e", {5}}, {"k", {2}}}, .domain = {Real, Index("e")}}}};
}

}    // namespace sheaf
