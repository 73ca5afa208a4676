#include "ops/builder.h"

namespace sheaf {

OpDef exchange_dispatch() {
  return {.doc = "dispatch and exchange_rows in one: a token goes once to each rank that holds some of its experts, and is copied there",
          .rule = "b s .., e b s, e b s -> e b s ..; linear x",
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .no_gradient = "written after differentiation",
          .kernel =
              [](const Args& a) {
                op(OpId::dispatch).kernel(Args{a.in.first(2), a.out, a.attrs});
              },
          .meaning =
              [](const Args& a) {
                op(OpId::dispatch).meaning(Args{a.in.first(2), a.out, a.attrs});
              },
          .cases = {{.dims = {{"e", {5}}, {"b", {2}}, {"s", {3}}, {"..", {4}}, {"k", {2}}},
                     .domain = {Real, Slot, Expert},
                     .attrs = {{"k", Int(2)}}}}};
}

}    // namespace sheaf
