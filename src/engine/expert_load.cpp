#include "engine/expert_load.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/loss.h"

namespace sheaf {

ExpertLoad expert_load(const float* tokens, std::size_t experts) {
  const double all = std::accumulate(tokens, tokens + experts, 0.0);
  ExpertLoad load;
  load.dead = std::count(tokens, tokens + experts, 0.0f);
  if (all == 0) return load;
  load.max_over_mean = *std::max_element(tokens, tokens + experts) * static_cast<double>(experts) / all;
  for (std::size_t e = 0; e < experts; ++e)
    if (tokens[e] > 0) load.entropy -= tokens[e] / all * std::log(tokens[e] / all);
  if (experts > 1) load.entropy /= std::log(static_cast<double>(experts));
  return load;
}

std::vector<ExpertLoad> expert_loads(const Executor& executor) {
  const Value v = executor.graph().find(kExpertLoad);
  if (!v) return {};
  const Shape shape = executor.local_shape(v);    // the same on every rank
  std::vector<float> tokens(static_cast<std::size_t>(num_elements(shape)));
  executor.read(v, tokens.data(), executor.local_bytes(v));
  std::vector<ExpertLoad> loads;
  const auto experts = static_cast<std::size_t>(shape[1]);
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(shape[0]); ++layer)
    loads.push_back(expert_load(tokens.data() + layer * experts, experts));
  return loads;
}

Json json_of(const std::vector<ExpertLoad>& loads) {
  Json list = Json::array();
  for (const ExpertLoad& load : loads)
    list.push_back({{"max_over_mean", load.max_over_mean}, {"entropy", load.entropy}, {"dead", load.dead}});
  return list;
}

}    // namespace sheaf
