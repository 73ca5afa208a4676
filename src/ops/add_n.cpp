#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>

#include "base/text.h"
#include "ops/builder.h"

namespace sheaf {

static std::string add_n_rule(const Attrs&, const Types& in) {
  return join(std::vector<std::string>(in.size(), ".."), ", ") + " -> ..; add x";
}

OpDef add_n() {
  return {.doc = "sum of all operands",
          .rule_of = add_n_rule,
          .kernel =
              [](const Args& a) {
                a.out[0].copy_(a.in[0]);
                for (std::size_t i = 1; i < a.in.size(); ++i) a.out[0].add_(a.in[i]);
              },
          .exact = true,
          .cases = {{.dims = {{"..", {3, 5}}}, .domain = {Real, Real, Real}}}};
}

}    // namespace sheaf
