#include <ATen/core/Tensor.h>
#include <ATen/ops/sum.h>

#include "ops/builder.h"
#include "ops/contraction.h"
#include "ops/routing.h"

namespace sheaf {

OpDef sum_expert_rows() {
  return {.doc = "the sum of an expert's rows, 0 without any: the gradient of its bias",
          .rule = "e b s .., e b s -> e ..; owner e; linear x",
          .dtype = einsum_dtype,
          .no_gradient = "a gradient itself",
          .kernel =
              [](const Args& a) {
                const auto rows = rows_of_experts(a.in[1], a.owner_begin, a.owner_end);
                for (std::size_t e = 0; e < rows.size(); ++e) {
                  at::Tensor out = a.out[0].select(0, static_cast<std::int64_t>(e));
                  at::sum_out(out, a.in[0].slice(2, rows[e].first, rows[e].second), {0, 1, 2}, false, out.scalar_type());
                }
              },
          .meaning =
              [](const Args& a) {
                a.out[0].copy_(where_chosen(a.in[0], a.in[1]).sum(at::IntArrayRef{1, 2}));
              },
          .cases = {{.dims = {{"e", {3}}, {"b", {2}}, {"s", {4}}, {"k", {2}}, {"..", {3, 2}}},
                     .domain = {Routed, Expert},
                     .attrs = {{"dtype", Text("same")}}}}};
}

}    // namespace sheaf
