#include "ops/builder.h"

namespace sheaf {

OpDef exchange_combine() {
  return {
      .doc = "exchange_rows and combine in one: the rows of a token are summed where its experts are, one sum comes back from each rank",
      .rule = "e b s .., e b s, e b s -> b s ..; linear x",
      .flops = [](const Attrs&, const Types& in) { return static_cast<double>(num_elements(in[0]->stored())); },
      .no_gradient = "written after differentiation",
      .kernel =
          [](const Args& a) {
            op(OpId::combine).kernel(Args{a.in.first(2), a.out, a.attrs});
          },
      .meaning =
          [](const Args& a) {
            op(OpId::combine).meaning(Args{a.in.first(2), a.out, a.attrs});
          },
      .cases = {{.dims = {{"e", {5}}, {"b", {2}}, {"s", {3}}, {"..", {4}}, {"k", {2}}},
                 .domain = {Routed, Slot, Expert},
                 .attrs = {{"k", Int(2)}}}}};
}

}    // namespace sheaf
