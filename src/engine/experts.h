#pragma once
// What a run's configuration says of the experts of its model.
#include "engine/config.h"
#include "mesh/refine.h"
#include "models/model_config.h"

namespace sheaf {

// UserError where the section expert_parallel, or run.expert_plan, does not fit the model: a dense model, more ranks than experts, a preset
// or a router key that says other than the model.
void check_experts(const RunConfig& run, const ModelConfig& model);

// edp, ep, etp over the ranks of the run; none for a dense model. Without the section experts are cut over tp.
std::vector<Degree> expert_degrees(const RunConfig& run, const ModelConfig& model);

// run.expert_order as anchor reads it; "": by number. UserError: no permutation of the experts.
std::string expert_order(const RunConfig& run, const ModelConfig& model);

// exact, dedup or gather: as run.expert_plan says, else what sends the fewest bytes where experts have equally many tokens; of plans within
// a tenth of that the simplest (gather, then exact).
std::string expert_plan(const RunConfig& run, const ModelConfig& model);

}    // namespace sheaf
