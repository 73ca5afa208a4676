#pragma once
// How evenly the routers of a step spread its tokens over their experts.
#include <cstdint>
#include <vector>

#include "base/json.h"
#include "runtime/executor.h"

namespace sheaf {

// Of one routed layer, over all ranks.
struct ExpertLoad {
  double max_over_mean = 0;    // tokens of the busiest expert over the mean: 1 where all have equally many
  double entropy = 0;          // of the shares of the experts, over its largest value: 1 where all have equally many, 0 where one has all
  std::int64_t dead = 0;       // experts without a token
};
ExpertLoad expert_load(const float* tokens, std::size_t experts);

// Of the last step, by routed layer; none for a dense model.
std::vector<ExpertLoad> expert_loads(const Executor& executor);
Json json_of(const std::vector<ExpertLoad>& loads);

}    // namespace sheaf
