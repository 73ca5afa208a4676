#include <ATen/core/Tensor.h>

#include "base/error.h"
#include "ops/builder.h"

namespace sheaf {

static DType cast_dtype(const Attrs& attrs, const Types&, std::size_t) {
  const auto dtype = dtype_from_name(attrs.text("dtype"));
  if (!dtype) user_error("cast: no dtype '{}'", attrs.text("dtype"));
  return *dtype;
}

// Refuses a partial: rounding each part before the sum would make the numbers depend on the mesh.
OpDef cast() {
  return {.doc = "x in another dtype, rounded to nearest even",
          .rule = ".. -> ..",
          .dtype = cast_dtype,
          .grad = [](const Grad& g) -> Values { return {g.b.cast(g.dy(), Text(name(g.b.type(g.x()).dtype)))}; },
          .kernel = [](const Args& a) { a.out[0].copy_(a.in[0]); },
          .exact = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real}, .attrs = {{"dtype", Text("fp64")}}}}};
}

}    // namespace sheaf
