// narrow_gradients: products per expert have 16-bit results on GPUs; an fp32 gradient made of them is a cast and twice the memory. Where
// nothing is added to a gradient, the epilogue reads it as it was made. Other products could be of either type: they are narrowed where
// options.bf16_gradients says so.
//
//   %1 = grouped_einsum %x, %dy, %e {..; dtype=fp32}                 %1 = grouped_einsum %x, %dy, %e {..; dtype=same}      (bf16)
//   %2 = sumsq %1                                       becomes      %2 = sumsq %1
//   .. = adamw @w, @w.m, @w.v, %1, ..                                .. = adamw @w, @w.m, @w.v, %1, ..
//
// On entry: micro_batches and lower_reshards are done: what is added to a gradient, over micro-batches or ranks, reads it.
// On exit:  a bf16 product per expert (or any) of dtype fp32 has a reader other than sumsq and adamw. fp16 stays: its range is too short
//           for a gradient that nothing scales.
#include <set>

#include "ops/op_table.h"
#include "passes/pass.h"

namespace sheaf {

Graph narrow_gradients(Graph graph, const Options& options) {
  constexpr std::size_t kGradient = 3;    // operand of adamw
  std::set<Value> wide;                   // has a reader that wants it as it is
  for (const Segment s : kSegments)
    for (const Node& node : graph.nodes(s))
      for (std::size_t i = 0; i < node.in.size(); ++i)
        if (node.op != &op(OpId::sumsq) && (node.op != &op(OpId::adamw) || i != kGradient)) wide.insert(node.in[i]);
  for (Node& node : graph.nodes(Segment::first)) {
    const bool product = node.op == &op(OpId::grouped_einsum) || (options.bf16_gradients && node.op == &op(OpId::einsum));
    if (!product || node.in.size() < 2 || !node.in[1] || wide.contains(node.out[0])) continue;
    const auto is_bf16 = [&](Value v) { return graph.type(v).dtype == DType::bf16; };
    if (graph.type(node.out[0]).dtype != DType::fp32 || !is_bf16(node.in[0]) || !is_bf16(node.in[1])) continue;
    node.attrs.set("dtype", Text("same"));
    graph[node.out[0]].type.dtype = DType::bf16;
  }
  return graph;
}

}    // namespace sheaf
