#pragma once
// A run planned without its device, its data or its weights.
#include <string>

#include "engine/config.h"
#include "engine/plan_report.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

struct RunPlan {
  RunConfig config;
  DeviceKind device = DeviceKind::cpu;
  std::string model_type;
  std::int64_t num_parameters = 0;
  Mesh mesh;
  std::vector<ParameterRow> parameters;
  std::vector<TrafficRow> communication;
  MemoryUse memory;                                   // of the rank that needs most
  std::int64_t arena_bytes = 0, scratch_bytes = 0;    // within activations and gradients; scratch: the largest of one kernel or collective
  bool scratch_measured = true;
  std::int64_t expert_rows = 0, expert_rows_loaded = 0;    // bytes: within activations; on a rank with `load` times its share
  double load = 2;
  Peak peak;
  std::string chosen;                      // what run.memory_limit led to; "": it was not given
  std::vector<std::string> assumptions;    // about what was not looked at
};

// load: of the rank with most rows of experts, over the mean. Reads config.json alone. The device is run.device, else that of the build.
// UserError: as the run's.
RunPlan plan_run(const RunConfig& config, double load = 2);

// The whole plan as text; `all`: every parameter on a line of its own.
std::string print(const RunPlan& plan, bool all);
Json to_json(const RunPlan& plan);

}    // namespace sheaf
