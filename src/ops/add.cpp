#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>

#include "base/text.h"
#include "ops/builder.h"

namespace sheaf {

// y's dims are the last dims of x: a bias is broadcast over the leading ones.
static std::string add_rule(const Attrs&, const Types& in) {
  const std::size_t n = in[0]->shape.size(), m = std::min(n, in[1]->shape.size());
  std::vector<std::string> x;
  for (std::size_t i = 0; i < n; ++i) x.push_back("d" + std::to_string(i));
  const std::vector<std::string> y(x.end() - static_cast<std::ptrdiff_t>(m), x.end());
  const auto text = [](const std::vector<std::string>& f) { return f.empty() ? "()" : join(f, " "); };
  return text(x) + ", " + text(y) + " -> " + text(x) + "; add x y";
}

static Values add_gradient(const Grad& g) {
  const std::size_t n = g.b.type(g.x()).shape.size(), m = g.b.type(g.x(1)).shape.size();
  if (n == m) return {g.dy(), g.dy()};
  Value dy1;
  if (g.wanted[1]) {
    std::vector<std::string> x;
    for (std::size_t i = 0; i < n; ++i) x.push_back("d" + std::to_string(i));
    const std::vector<std::string> y(x.end() - static_cast<std::ptrdiff_t>(m), x.end());
    dy1 = g.b.einsum(g.dy(), Value{}, join(x, " ") + " -> " + join(y, " "), g.dtype_for(1));
  }
  return {g.dy(), dy1};
}

OpDef add() {
  return {.doc = "x + y; y may lack leading dims of x (bias)",
          .rule_of = add_rule,
          .grad = add_gradient,
          .kernel = [](const Args& a) { at::add_out(a.out[0], a.in[0], a.in[1]); },
          .exact = true,
          .in_place = true,
          .cases = {{.dims = {{"d0", {3}}, {"d1", {5}}}, .domain = {Real}}}};
}

}    // namespace sheaf
