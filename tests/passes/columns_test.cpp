// Where plan_memory lays what one product makes or reads, and that verify_memory knows columns of one matrix from values that overlap.
#include "passes/columns.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/op_table.h"
#include "passes/plan_memory.h"

using namespace sheaf;

namespace {

constexpr const char* kGraph = R"(state @wq bf16[16, 8]
state @wk bf16[8, 8]
input @x bf16[2, 3, 8]
input @cos fp32[2, 3, 4]
input @sin fp32[2, 3, 4]
carried @dx bf16[2, 3, 8]
first
  %0, %1 = einsum_each @x, @wq, @wk {b s k, i k -> b s i | b s k, i k -> b s i; dtype=same} : bf16[2, 3, 16]; bf16[2, 3, 8]
  %2 = rotate %1, @cos, @sin {interleaved=false, inverse=false} : bf16[2, 3, 8]
  %3 = einsum_sum %0, @wq, %2, @wk {b s i, i k -> b s k | b s i, i k -> b s k; dtype=same} : bf16[2, 3, 8]
  set @dx, %3
)";

// Every kernel can do with gaps, but for what `without` says of nodes of `first`.
ColumnMasks masks(const Graph& graph, std::size_t without = SIZE_MAX) {
  ColumnMasks masks;
  for (const Segment s : kSegments) masks[static_cast<std::size_t>(s)].assign(graph.nodes(s).size(), {~0U, ~0U});
  if (without != SIZE_MAX) masks[static_cast<std::size_t>(Segment::first)][without] = {};
  return masks;
}

struct Planned {
  Graph graph = parse_graph(kGraph, all_ops());
  MemoryPlan plan;
  explicit Planned(std::size_t without = SIZE_MAX) : plan(plan_memory(graph, {}, {}, masks(graph, without))) { verify_memory(graph, plan); }
  Value out(std::size_t node, std::size_t output = 0) const { return graph.nodes(Segment::first)[node].out[output]; }
  Place& place(Value v) { return plan.places[static_cast<std::size_t>(v.id)]; }
};

}    // namespace

TEST(Columns, results_of_a_product_lie_side_by_side_and_are_written_over) {
  Planned p;
  const Place q = p.place(p.out(0, 0)), k = p.place(p.out(0, 1)), turned = p.place(p.out(1));
  EXPECT_EQ(q.pitch, 2 * (16 + 8));    // bytes of a token
  EXPECT_EQ(k.pitch, q.pitch);
  EXPECT_EQ(k.offset, q.offset + 2 * 16);
  EXPECT_EQ(turned.offset, k.offset);    // in place, between the same gaps
  EXPECT_EQ(turned.pitch, k.pitch);
  EXPECT_EQ(extent_of(p.graph, q, p.out(0, 0)), 5 * q.pitch + 2 * 16);
}

TEST(Columns, one_kernel_that_cannot_do_with_gaps_keeps_them_apart) {
  Planned p(1);
  EXPECT_EQ(p.place(p.out(0, 0)).pitch, 0);
  EXPECT_EQ(p.place(p.out(0, 1)).pitch, 0);
  EXPECT_EQ(p.place(p.out(1)).pitch, 0);
}

TEST(Columns, weights_that_are_made_in_the_step_lie_one_after_the_other) {
  const Graph graph = parse_graph(R"(input @wq fp32[16, 8]
input @wk fp32[8, 8]
input @x bf16[2, 3, 8]
carried @q bf16[2, 3, 16]
carried @k bf16[2, 3, 8]
first
  %0 = cast @wk {dtype=bf16} : bf16[8, 8]
  %1 = cast @wq {dtype=bf16} : bf16[16, 8]
  %2, %3 = einsum_each @x, %0, %1 {b s k, i k -> b s i | b s k, i k -> b s i; dtype=same} : bf16[2, 3, 8]; bf16[2, 3, 16]
  set @k, %2
  set @q, %3
)",
                                  all_ops());
  const auto& nodes = graph.nodes(Segment::first);
  const auto places = [&](const ColumnMasks& columns) {
    const MemoryPlan plan = plan_memory(graph, {}, {}, columns);
    verify_memory(graph, plan);
    const auto offset = [&](std::size_t node) { return plan.places[static_cast<std::size_t>(nodes[node].out[0].id)].offset; };
    return offset(1) - offset(0);
  };
  EXPECT_EQ(places(masks(graph)), 2 * 8 * 8);
  EXPECT_EQ(places(masks(graph, 2)) % 256, 0);    // one by one: each where values begin
}

TEST(Columns, that_overlap_are_found) {
  Planned p;
  p.place(p.out(0, 1)).offset -= 2;
  EXPECT_THROW(verify_memory(p.graph, p.plan), InternalError);
}
