#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>

#include "ops/builder.h"
#include "ops/routing.h"

namespace sheaf {

OpDef add_expert_bias() {
  return {.doc = "x + bias of the expert of its row",
          .rule = "e b s .., e .., e b s -> e b s ..; owner e; add x bias",
          .grad = [](const Grad& g) -> Values {
            return {g.dy(), g.wanted[1] ? Value(g.b.sum_expert_rows(g.dy(), g.x(2), g.dtype_for(1))) : Value{}, {}};
          },
          .no_gradient = "expert: decisions",
          .kernel =
              [](const Args& a) {
                const auto rows = rows_of_experts(a.in[2], a.owner_begin, a.owner_end);
                for (std::size_t e = 0; e < rows.size(); ++e) {
                  const auto [begin, end] = rows[e];
                  at::Tensor out = a.out[0].slice(2, begin, end);
                  at::add_out(out, a.in[0].slice(2, begin, end), a.in[1].select(0, static_cast<std::int64_t>(e)));
                }
              },
          .meaning = [](const Args& a) { a.out[0].copy_(where_chosen(a.in[0].add(a.in[1].unsqueeze(1).unsqueeze(1)), a.in[2])); },
          .in_place = true,
          .cases = {{.dims = {{"e", {3}}, {"b", {2}}, {"s", {4}}, {"k", {2}}, {"..", {3, 2}}}, .domain = {Routed, Real, Expert}},
                    {.dims = {{"e", {4}}, {"b", {2}}, {"s", {3}}, {"k", {2}}, {"..", {5}}}, .domain = {Routed, Real, Expert}}}};
}

}    // namespace sheaf
