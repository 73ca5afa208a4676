#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

OpDef exchange_rows() {
  return {
      .doc =
          "x, routed, between the placement of its tokens and that of its experts: every row goes to, or comes back from, the rank that "
          "holds its expert. expert: the experts of the rows where the tokens are",
      .rule = "e b s .., e b s -> e b s ..; linear x",
      .flops = [](const Attrs&, const Types&) { return 0.0; },
      .no_gradient = "written after differentiation",
      .kernel = [](const Args& a) { a.out[0].copy_(a.in[0]); },
      .meaning = [](const Args& a) { a.out[0].copy_(a.in[0]); },
      .cases = {{.dims = {{"e", {5}}, {"b", {2}}, {"s", {3}}, {"..", {4}}, {"k", {2}}}, .domain = {Routed, Expert}}}};
}

}    // namespace sheaf
