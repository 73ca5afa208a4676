#include <ATen/core/Tensor.h>

#include "base/error.h"
#include "ops/builder.h"

namespace sheaf {

// Rows and tokens as a rank holds them, each cut into equal pieces; where b has one row to a piece, or s one piece, a chunk is one block of
// what is stored, and chunks lie in order of their index.
OpDef chunk() {
  return {.doc = "chunk `index` of x[b, s, ..], of b x s: rows in b pieces, tokens in s, tokens minor. On a mesh, of what a rank holds",
          .rule = "b s .. -> c t ..; full b s c t",
          .extent_of =
              [](std::string_view factor, const Attrs& attrs, const Types& in) {
                const std::size_t dim = factor == "c" ? 0 : 1;
                const std::int64_t pieces = attrs.integer(dim == 0 ? "b" : "s"), extent = in[0]->shape[dim];
                SHEAF_CHECK(pieces > 0 && extent % pieces == 0, "chunk: {} in {} pieces", extent, pieces);
                return extent / pieces;
              },
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .no_gradient = "written after differentiation",
          .kernel =
              [](const Args& a) {
                const std::int64_t s = a.attrs.integer("s"), index = a.attrs.integer("index"), rows = a.out[0].size(0),
                                   tokens = a.out[0].size(1);
                a.out[0].copy_(a.in[0].narrow(0, index / s * rows, rows).narrow(1, index % s * tokens, tokens));
              },
          .exact = true,
          .view = true,
          .cases = {{.dims = {{"b", {2}}, {"s", {6}}, {"..", {3}}},
                     .domain = {Real},
                     .attrs = {{"b", Int(2)}, {"s", Int(3)}, {"index", Int(4)}}}}};
}

}    // namespace sheaf
