#pragma once
// From a run's configuration to what the passes are told about placements.
#include "engine/config.h"
#include "models/model_config.h"
#include "passes/pass.h"

namespace sheaf {

// The fields of `anchor`: mesh, tensor-parallel plan, ZeRO. All are left alone for one rank. `config`: the model's config.json, whose own
// base_model_tp_plan comes before the built-in one; the run's partition_config comes before both. UserError: degrees that do not fit.
void set_placement(Options& options, const RunConfig& run, const Json& config, const ModelConfig& model);

}    // namespace sheaf
