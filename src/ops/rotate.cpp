#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

// Pairs are (i, i + j) in the half layout, (2i, 2i + 1) interleaved; channels from 2j on pass unchanged. Linear in x, and its adjoint is
// the rotation by the negative angle times scaling, which `inverse` computes: cos stays, sin changes its sign.
OpDef rotate() {
  return {.doc = "rotates pairs of the first 2j channels of x by the angles of cos, sin[b, s, j] (Su et al. 2021)",
          .rule = "b s .. d, b s j, b s j -> b s .. d; full d j; linear x",
          .flops = [](const Attrs&, const Types& in) { return 3.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .grad = [](const Grad& g) -> Values {
            return {g.b.rotate(g.dy(), g.x(1), g.x(2), g.attrs.flag("interleaved"), !g.attrs.flag("inverse")), {}, {}};
          },
          .no_gradient = "cos, sin: data",
          .kernel =
              [](const Args& a) {
                const at::Tensor& x = a.in[0];
                at::Tensor c = a.in[1], s = a.in[2];
                while (c.dim() < x.dim()) c = c.unsqueeze(2), s = s.unsqueeze(2);
                const std::int64_t j = c.size(-1);
                const bool interleaved = a.attrs.flag("interleaved");
                const auto half = [&](const at::Tensor& t, std::int64_t which) {
                  return interleaved ? t.slice(-1, which, 2 * j, 2) : t.slice(-1, which * j, (which + 1) * j);
                };
                if (2 * j < x.size(-1)) a.out[0].slice(-1, 2 * j).copy_(x.slice(-1, 2 * j));
                const at::Tensor x0 = half(x, 0), x1 = half(x, 1), x0s = x0.mul(s), x1s = x1.mul(s);
                const bool inverse = a.attrs.flag("inverse");
                half(a.out[0], 0).copy_(inverse ? x0.mul(c).add_(x1s) : x0.mul(c).sub_(x1s));
                half(a.out[0], 1).copy_(inverse ? x1.mul(c).sub_(x0s) : x1.mul(c).add_(x0s));
              },
          .in_place = true,
          .cases = {{.dims = {{"b", {2}}, {"s", {3}}, {"..", {2, 2}}, {"d", {6}}, {"j", {3}}},
                     .domain = {Real, Real, Real},
                     .attrs = {{"interleaved", false}, {"inverse", false}}},
                    {.dims = {{"b", {2}}, {"s", {3}}, {"..", {3}}, {"d", {6}}, {"j", {2}}},
                     .domain = {Real, Real, Real},
                     .attrs = {{"interleaved", true}, {"inverse", true}}}}};
}

}    // namespace sheaf
