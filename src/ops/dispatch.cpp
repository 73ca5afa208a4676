#include <ATen/ops/index_select.h>

#include "ops/builder.h"
#include "ops/routing.h"

namespace sheaf {

OpDef dispatch() {
  return {
      .doc = "a row for every chosen expert of a token: its copy; k: choices of a token. The adjoint of combine",
      .rule = "b s .., e b s -> e b s ..; linear x",
      .flops = [](const Attrs&, const Types&) { return 0.0; },
      .grad = [](const Grad& g) -> Values {
        return {g.b.combine(g.dy(), g.x(1), g.attrs.integer("k")), {}};
      },
      .no_gradient = "slot: decisions",
      .kernel =
          [](const Args& a) {
            const at::Tensor token = a.in[1].reshape({-1}).div(a.attrs.integer("k"), "floor");
            at::Tensor out = as_rows(a.out[0]);
            if (out.numel() > 0) at::index_select_out(out, as_tokens(a.in[0]), 0, token);
          },
      .meaning = [](const Args& a) { a.out[0].copy_(where_chosen(a.in[0].unsqueeze(0).expand_as(a.out[0]), a.in[1])); },
      .cases = {{.dims = {{"e", {5}}, {"b", {2}}, {"s", {3}}, {"..", {4}}, {"k", {2}}}, .domain = {Real, Slot}, .attrs = {{"k", Int(2)}}}}};
}

}    // namespace sheaf
