#pragma once
// The main job: from a run configuration to a trained model folder.
#include <atomic>
#include <string>

#include "comm/launch.h"
#include "engine/config.h"

namespace sheaf {

struct TrainFlags {
  std::string dump_ir;         // a folder: the graph after every pass; "": none
  std::int64_t profile = 0;    // the step whose calls are timed and shown; 0: none
  bool resume = false;
};

enum class TrainEnd { finished, interrupted };

// Runs to the end, or until `stop` is set: then the step in hand is finished and the model is saved. Throws UserError before anything is
// written if the run cannot start. launch: who started this process, with how many others; else run.nproc threads are the ranks.
TrainEnd train(const LoadedConfig& loaded, const TrainFlags& flags, const Launch& launch, const std::atomic<bool>& stop);

}    // namespace sheaf
