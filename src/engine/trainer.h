#pragma once
// The main job: from a run configuration to a trained model folder.
#include <atomic>
#include <functional>
#include <string>

#include "comm/launch.h"
#include "engine/config.h"
#include "engine/run_log.h"

namespace sheaf {

struct TrainFlags {
  std::string dump_ir;         // a folder: the graph after every pass; "": none
  std::int64_t profile = 0;    // the step whose calls are timed and shown; 0: none
  bool resume = false;

  // For a program that compares runs. With `watch`, which rank 0 calls after every update, a run prints nothing and writes no model.
  std::function<void(const StepRecord&)> watch;
  int threads = 0;               // of a rank, inside ops on the CPU; 0: an equal share of the machine's
  bool rows_reversed = false;    // within a micro-batch: the same sums in another order
};

enum class TrainEnd { finished, interrupted };

// Runs to the end, or until `stop` is set: then the step in hand is finished and the model is saved. Throws UserError before anything is
// written if the run cannot start. launch: who started this process, with how many others; else run.nproc threads are the ranks.
TrainEnd train(const LoadedConfig& loaded, const TrainFlags& flags, const Launch& launch, const std::atomic<bool>& stop);

}    // namespace sheaf
