#pragma once
#include "engine/config.h"
#include "engine/plan_report.h"
#include "runtime/scratch_plan.h"

namespace sheaf {

// What a step takes of the memory of a rank.
struct RankMemory {
  MemoryUse use;
  MemoryPlan plan;
  ScratchPlan scratch;
};

// Of the rank that takes most. Buffers are sized at the largest piece, on every rank alike; only what kernels and collectives take differs,
// where pieces do. Of many ranks the first, the last and one in the middle are looked at. gpu: of this machine, to measure on, -1: none.
// known: of other plans of the same run, read and added to.
RankMemory heaviest_rank(const Graph& graph, const RunConfig& config, DeviceKind device, int gpu, KnownScratch& known);

}    // namespace sheaf
