#include <ATen/core/Tensor.h>
#include <ATen/ops/stack.h>

#include "base/text.h"
#include "ops/builder.h"

namespace sheaf {

OpDef stack() {
  return {.doc = "its operands along a new first dim",
          .rule_of = [](const Attrs&,
                        const Types& in) { return join(std::vector<std::string>(in.size(), "e"), ", ") + " -> l e; full l; add x"; },
          .extent_of = [](std::string_view, const Attrs&, const Types& in) { return std::ssize(in); },
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .no_gradient = "for statistics",
          .kernel = [](const Args& a) { at::stack_out(a.out[0], at::TensorList(a.in.data(), a.in.size())); },
          .exact = true,
          .cases = {{.dims = {{"e", {5}}}, .domain = {Real, Real, Real}}}};
}

}    // namespace sheaf
