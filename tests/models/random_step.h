#pragma once
// A small training step, a mesh and placements on it, all from one seed.
#include <cstdint>
#include <random>
#include <string>

#include "models/model.h"
#include "passes/pass.h"
#include "support/compare_steps.h"

namespace sheaf::testing {

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : rng_(seed * 0x9e3779b97f4a7c15u + 1) {}
  std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(rng_() % static_cast<std::uint64_t>(n)); }
  bool chance(std::int64_t percent) { return below(100) < percent; }
  template <class T>
  T one_of(const std::vector<T>& from) {
    return from[static_cast<std::size_t>(below(static_cast<std::int64_t>(from.size())))];
  }

 private:
  std::mt19937_64 rng_;    // not its distributions: they differ by library
};

struct RandomStep {
  std::uint64_t seed;
  Json config;
  ModelShape shape;
  DType compute = DType::fp32;
  Options options;

  std::string print() const;    // all that reproduces it
  // The step after all training passes but flatten (which is about storage).
  Graph on_one_rank() const;
  Graph on_the_mesh() const;
  Graph rewritten() const;    // on the mesh, with what changes nodes: tiles, recomputation, fused ops
  StepInputs inputs() const { return {.vocab = config.at("vocab_size").get<std::int64_t>(), .seed = seed + 1}; }
};

// max_ranks: of the mesh, at least 2.
RandomStep random_step(std::uint64_t seed, std::int64_t max_ranks = 16);

}    // namespace sheaf::testing
