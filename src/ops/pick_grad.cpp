#include <ATen/core/Tensor.h>

#include "ops/builder.h"
#include "ops/owned.h"

namespace sheaf {

// `like` gives the extent of v; its elements are not read.
OpDef pick_grad() {
  return {.doc = "dx[.., v] = dy[..] where labels[..] = v, else 0",
          .rule = ".., .., .. v -> .. v; owner v; linear dy",
          .kernel =
              [](const Args& a) {
                at::Tensor out = a.out[0].zero_();
                const std::int64_t n = out.size(-1);
                if (n == 0) return;
                const auto [local, elsewhere] = owned(a.in[1], a.owner_begin, n);
                out.scatter_(-1, local.unsqueeze(-1), a.in[0].masked_fill(elsewhere, 0).unsqueeze(-1));
              },
          .exact = true,
          .cases = {{.dims = {{"..", {2, 3}}, {"v", {7}}}, .domain = {Real, Label("v"), Real}}}};
}

}    // namespace sheaf
