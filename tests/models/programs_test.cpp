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
std::string difference(const RandomStep& step) {
  try {
    const Graph one = step.on_one_rank(), placed = step.on_the_mesh();
    const std::string found = StepPair(one, placed, step.inputs()).step();
    return found;
  } catch (const std::exception& error) {
    return error.what();
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
    return;
  }
  const std::uint64_t count = number_from("SHEAF_PROGRAMS", 1000);
  int wrong = 0;
  for (std::uint64_t seed = 0; seed < count && wrong < 5; ++seed) {
    const RandomStep step = random_step(seed);
    const std::string found = difference(step);
    if (found.empty()) continue;
    ++wrong;
    ADD_FAILURE() << found << "\n" << step.print() << "\nSHEAF_PROGRAM=" << seed << " runs it alone";
  }
}
