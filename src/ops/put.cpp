#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

// Where a row's ids are distinct, as choose_experts makes them, every element is added to at most once: in no order that could matter.
OpDef put() {
  return {.doc = "dx[.., i] = sum of dy[.., j] where ids[.., j] = i: gradient of take",
          .rule = ".. k, .. k -> .. e; full k e; linear dy",
          .extent_of = [](std::string_view, const Attrs& attrs, const Types&) { return attrs.integer("extent"); },
          .flops = [](const Attrs&, const Types&) { return 0.0; },
          .kernel = [](const Args& a) { a.out[0].zero_().scatter_add_(-1, a.in[1].to(at::kLong), a.in[0]); },
          .exact = true,
          .cases = {{.dims = {{"..", {2, 3}}, {"k", {2}}, {"e", {5}}}, .domain = {Real, Index("e")}, .attrs = {{"extent", Int(5)}}}}};
}

}    // namespace sheaf
