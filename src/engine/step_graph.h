#pragma once
// From a configuration and a model's config.json to the graph of a training step, after all passes.
#include <string>

#include "engine/config.h"
#include "models/model_config.h"
#include "passes/pass.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

// What run.deterministic says; where it says nothing, true on the CPU, whose kernels are so anyway.
inline bool is_deterministic(const RunConfig& config, DeviceKind device) {
  return config.run.deterministic.value_or(device == DeviceKind::cpu);
}

struct StepOptions {
  std::int64_t documents = 0;             // the most that a row of the corpus has; 0: rows are not packed by documents
  std::string dump_ir;                    // a folder: the graph after every pass; "": none
  std::string where = "config.json";      // what errors name
  DeviceKind device = DeviceKind::cpu;    // for whose kernels run.memory_limit is met
  int gpu = -1;                           // of this machine, where that is measured; -1: none is at hand, it is planned
};
struct TrainingStep {
  Graph graph;
  std::string chosen;    // for people: what run.memory_limit led to; "": it was not given
};
// UserError: degrees that do not fit the model; run.master_encoding "split" where no master can be; a run.memory_limit that nothing meets.
TrainingStep training_step(const RunConfig& config, const Json& model, const ModelConfig& parsed, const StepOptions& options);

}    // namespace sheaf
