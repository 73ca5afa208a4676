#include <ATen/core/Tensor.h>

#include "base/error.h"
#include "ops/builder.h"

namespace sheaf {

// Where a state of HF holds unequal things side by side (MLA's latent and rope channels), so that they cannot be a dim of their own.
OpDef part() {
  return {.doc = "channels [begin, begin + length) of the last dim",
          .rule = ".. d -> .. p; full d p; linear x",
          .extent_of =
              [](std::string_view, const Attrs& attrs, const Types& in) {
                const std::int64_t begin = attrs.integer("begin"), length = attrs.integer("length"), d = in[0]->shape.back();
                SHEAF_CHECK(begin >= 0 && length >= 0 && begin + length <= d, "part: [{}, {}) of {}", begin, begin + length, d);
                return length;
              },
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .grad = [](const Grad& g) -> Values { return {g.b.place(g.dy(), g.attrs.integer("begin"), g.b.type(g.x()).shape.back())}; },
          .kernel = [](const Args& a) { a.out[0].copy_(a.in[0].narrow(-1, a.attrs.integer("begin"), a.attrs.integer("length"))); },
          .exact = true,
          .cases = {{.dims = {{"..", {2, 3}}, {"d", {7}}}, .domain = {Real}, .attrs = {{"begin", Int(2)}, {"length", Int(4)}}}}};
}

}    // namespace sheaf
