#pragma once
// `sheaf bench convergence`: every family with experts trains on meshes as it trains on one rank.
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/bench/bench_mesh.h"
#include "engine/bench/quiet_run.h"
#include "engine/bench/tiny_models.h"

namespace sheaf {

// Two fp32 programs that differ in the order of sums agree so in their first updates; then small differences grow, as training is chaotic.
inline constexpr std::int64_t kFirstUpdates = 20;
inline constexpr double kTolerance = 1e-5;

struct ConvergenceOptions {
  std::vector<TinyModel> models;
  std::int64_t steps = 300, seq_len = 64;
  std::string data, output;
  std::string device;    // "": the default
};

// Of a step's routed layers the worst.
struct LoadPoint {
  double max_over_mean = 0, entropy = 1, dead = 0;    // dead: the sum
  bool operator==(const LoadPoint&) const = default;
};

struct ConvergenceRun {
  std::string id, name;    // ep_tp, "EP + TP"
  BenchMesh mesh;
  bool rows_reversed = false;    // the unpartitioned model in another order of sums
  QuietRun run;
  // By update; what is not finite is NaN. load: empty where metrics.jsonl has none.
  std::vector<double> loss, grad_norm;
  std::vector<LoadPoint> load;
  // Relative to the unpartitioned run, of as many updates as both have.
  std::vector<double> loss_difference, norm_difference;
  double first_loss = 0, first_norm = 0, later_loss = 0, later_norm = 0;    // the largest of the first updates and of those after them
  std::int64_t other_load_at = 0;    // the first update whose tokens went to experts otherwise; 0: none
  bool compared = false;             // is a mesh, and finished
  bool passed = false;
};

struct ConvergenceFamily {
  TinyModel model;
  Json config;
  std::int64_t parameters = 0;
  std::vector<ConvergenceRun> runs;    // the unpartitioned one first
};

struct ConvergenceResult {
  ConvergenceOptions options;
  std::string device;                   // in words
  std::int64_t rows = 0, tokens = 0;    // of the corpus
  std::int64_t batch = 0, micro_batches = 0;
  std::vector<ConvergenceFamily> families;
  bool interrupted = false;
  std::int64_t num_compared() const;
  std::int64_t num_passed() const;
  bool passed() const;    // all runs finished, all comparisons within the tolerance
};

// Trains all, into options.output/runs. `each` hears of every family when it is done; of what an interrupt left of the last one, too.
ConvergenceResult run_convergence(const ConvergenceOptions& options, const std::atomic<bool>& stop,
                                  const std::function<void(const ConvergenceResult&)>& each);

// What stands in one family's rows on the terminal.
std::string convergence_text(const ConvergenceFamily& family);
std::string convergence_verdict(const ConvergenceResult& result);
// results.json, table.md, index.html into options.output, each replaced as a whole.
void write_convergence(const ConvergenceResult& result);

}    // namespace sheaf
