#include <ATen/core/Tensor.h>

#include "base/text.h"
#include "mesh/rule.h"
#include "ops/builder.h"

namespace sheaf {

// The adjoint of a sum: x is repeated over the factors that it lacks. `like` gives their extents; its elements are not read.
OpDef broadcast() {
  return {.doc = "x repeated over the dims of `like` that it lacks",
          .rule_of = [](const Attrs& attrs, const Types&) { return attrs.text("rule") + "; linear x"; },
          .grad = [](const Grad& g) -> Values {
            const Rule rule = Rule::parse(g.attrs.text("rule"));
            return {g.b.einsum(g.dy(), Value{}, join(rule.out[0], " ") + " -> " + (rule.in[0].empty() ? "()" : join(rule.in[0], " ")),
                               g.dtype_for(0)),
                    {}};
          },
          .no_gradient = "like: only its extents are read",
          .kernel =
              [](const Args& a) {
                const Rule rule = Rule::parse(a.attrs.text("rule"));
                at::Tensor x = a.in[0];
                for (std::size_t d = 0; d < rule.out[0].size(); ++d)
                  if (!has(rule.in[0], rule.out[0][d])) x = x.unsqueeze(static_cast<std::int64_t>(d));
                a.out[0].copy_(x.expand_as(a.out[0]));
              },
          .exact = true,
          .cases = {{.dims = {{"a", {3}}, {"b", {5}}}, .domain = {Real, Real}, .attrs = {{"rule", Text("a, a b -> a b")}}},
                    {.dims = {{"a", {3}}, {"b", {5}}}, .domain = {Real, Real}, .attrs = {{"rule", Text("(), a b -> a b")}}}}};
}

}    // namespace sheaf
