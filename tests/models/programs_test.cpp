// Random small models, on random meshes of up to 16 ranks, placed at random: partitioned = unpartitioned, value by value, to the bit.
//
//   SHEAF_PROGRAM=SEED    runs this one and prints it       SHEAF_PROGRAMS=N    so many, from seed 0 (a night: 100000)
#include <gtest/gtest.h>

#include <cstdlib>

#include "models/random_step.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

// "" or what is wrong with it.
std::string difference(const RandomStep& step, bool rewritten = false) {
  try {
    const Graph one = step.on_one_rank(), placed = rewritten ? step.rewritten() : step.on_the_mesh();
    return StepPair(one, placed, step.inputs(), {}, !rewritten).step();
  } catch (const std::exception& error) {
    return error.what();
  }
}

void expect_equal(std::uint64_t count, bool rewritten) {
  int wrong = 0;
  for (std::uint64_t seed = 0; seed < count && wrong < 5; ++seed) {
    const RandomStep step = random_step(seed);
    const std::string found = difference(step, rewritten);
    if (found.empty()) continue;
    ++wrong;
    ADD_FAILURE() << found << "\n" << step.print() << "\nSHEAF_PROGRAM=" << seed << " runs it alone";
  }
}

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::stoull(text) : otherwise;
}

}    // namespace

TEST(Programs, partitioned_is_unpartitioned) {
  if (const char* seed = std::getenv("SHEAF_PROGRAM")) {
    const RandomStep step = random_step(std::stoull(seed));
    EXPECT_EQ(difference(step), "") << step.print() << "\n" << print(step.on_the_mesh());
    EXPECT_EQ(difference(step, true), "") << step.print() << "\n" << print(step.rewritten());
    return;
  }
  expect_equal(number_from("SHEAF_PROGRAMS", 1000), false);
}

// Tiles, values that are computed again and fused ops, against a step on one rank that has none of them: all states and accumulators.
TEST(Programs, rewritten_is_unpartitioned) {
  expect_equal(number_from("SHEAF_PROGRAMS", 300), true);
  // What is equal is something else: of the first programs many have each.
  int chunks = 0, again = 0, fused = 0, weighted = 0, weighted_grad = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Graph graph = random_step(seed).rewritten();
    for (const Node& node : graph.nodes(Segment::first)) {
      chunks += node.op->name == "chunk", again += node.note == "again", fused += !node.op->parts.empty();
      weighted += node.op->name == "gated_weighted", weighted_grad += node.op->name == "gated_weighted_grad";
    }
  }
  EXPECT_GT(chunks, 30);
  EXPECT_GT(again, 50);
  EXPECT_GT(fused, 50);
  EXPECT_GT(weighted, 2);
  EXPECT_GT(weighted_grad, 2);
}
