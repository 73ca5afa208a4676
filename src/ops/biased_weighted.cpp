#include "ops/parts.h"

namespace sheaf {

OpDef biased_weighted() {
  return {.doc = "w (x + bias of the expert of its row), w a number for every row",
          .rule = "e b s h, e h, e b s, e b s -> e b s h; owner e; linear w",
          .flops = [](const Attrs&, const Types& in) { return 2.0 * static_cast<double>(num_elements(in[0]->shape)); },
          .no_gradient = "written after differentiation",
          .kernel = parts_kernel<OpId::biased_weighted>,
          .meaning = parts_meaning<OpId::biased_weighted>,
          .parts = "h = add_expert_bias x, bias, expert; y = einsum h, w {e b s k, e b s -> e b s k; dtype=same} -> y",
          .in_place = true,
          .cases = {{.dims = {{"e", {3}}, {"b", {2}}, {"s", {4}}, {"k", {2}}, {"h", {5}}}, .domain = {Routed, Real, Expert, Routed}}}};
}

}    // namespace sheaf
