#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sort.h>

#include "ops/builder.h"

namespace sheaf {

// Chunked attention is attention inside documents that end at every multiple of the chunk too.
OpDef merge_ends() {
  return {
      .doc = "ends of documents and the multiples of chunk below length, in order",
      .rule = "b c -> b f; full c f",
      .extent_of = [](std::string_view, const Attrs& attrs,
                      const Types& in) { return in[0]->shape[1] + (attrs.integer("length") - 1) / attrs.integer("chunk"); },
      .flops = [](const Attrs&, const Types&) { return 0.0; },
      .no_gradient = "data",
      .kernel =
          [](const Args& a) {
            const std::int64_t chunk = a.attrs.integer("chunk"), n = (a.attrs.integer("length") - 1) / chunk;
            const at::Tensor chunks = at::arange(chunk, (n + 1) * chunk, chunk, a.in[0].options()).expand({a.in[0].size(0), n});
            a.out[0].copy_(std::get<0>(at::sort(at::cat({a.in[0], chunks}, 1), 1)));
          },
      .exact = true,
      .cases = {{.dims = {{"b", {3}}, {"c", {2}}, {"s", {12}}}, .domain = {Ends("s")}, .attrs = {{"chunk", Int(5)}, {"length", Int(12)}}}}};
}

}    // namespace sheaf
