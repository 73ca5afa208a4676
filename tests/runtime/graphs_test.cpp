// Captured graphs where there are none: the CPU. With a GPU: tests/gpu/graphs_test.cpp.
#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/builder.h"
#include "runtime/executor.h"

using namespace sheaf;

namespace {

std::string graphs_on_cpu(std::optional<bool> wanted) {
  Graph graph;
  Builder b(graph, Segment::first, DType::fp32);
  b.relu(b.input("x", DType::fp32, {2, 3}));
  return Executor(std::move(graph), {.cuda_graphs = wanted}).graphs();
}

TEST(Graphs, on_the_cpu_there_are_none_and_who_demands_them_is_told) {
  EXPECT_EQ(graphs_on_cpu(false), "");
  EXPECT_EQ(graphs_on_cpu(std::nullopt), "");
  try {
    graphs_on_cpu(true);
    ADD_FAILURE() << "no error";
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(), "\"run.cuda_graphs\": true: on cpu there are none");
  }
}

}    // namespace
