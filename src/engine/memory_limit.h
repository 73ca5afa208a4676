#pragma once
#include <string>

#include "engine/config.h"
#include "passes/pass.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

// Sets what is computed again to the least for which no rank plans more than run.memory_limit: of the order nothing, `selective` block by
// block, `block` block by block, by bisection over whole plans. model: before all passes. Returns what was chosen, for people. UserError if
// nothing fits on `device`, or if run.recompute is given as well. gpu: of this machine, to measure on, -1: none.
std::string fit_memory_limit(const RunConfig& config, const Graph& model, DeviceKind device, int gpu, Options& options);

}    // namespace sheaf
