#pragma once
// `sheaf bench moe`: speed, memory and scaling over sizes, ranks and meshes; predictions where the devices are not there.
#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/bench/bench_mesh.h"
#include "engine/bench/model_sizes.h"
#include "engine/plan_report.h"

namespace sheaf {

inline constexpr std::int64_t kWarmupSteps = 3;    // before those that are timed

struct MoeOptions {
  std::vector<ModelSize> sizes;
  std::vector<std::int64_t> ranks;
  std::vector<MeshWords> meshes;
  std::int64_t steps = 10, seq_len = 0, rows = 1;    // rows of a rank in a step
  bool bf16 = false;
  double link = 0;    // bytes a second that a rank sends; 0: times are not predicted
  std::string device, output;
};

struct MoeRow {
  enum class Kind { measured, predicted, failed, interrupted, impossible };
  Kind kind = Kind::predicted;
  std::string words;    // of the mesh
  BenchMesh mesh;
  std::string note;                    // why it was not measured, or what it failed of
  std::int64_t tokens = 0;             // of a step
  std::vector<double> step_seconds;    // timed steps
  double seconds = 0;                  // of a step: their median, or as predicted; 0: not known
  double efficiency = 0;               // tokens/s of a rank over those of the baseline; 0: not known
  std::int64_t peak_bytes = 0;         // of a rank, measured
  // Of the plan.
  MemoryUse planned;
  std::int64_t sent_bytes = 0;                                                               // by a rank, in a step
  double rate() const { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }    // tokens/s of all ranks
  double rank_rate() const { return rate() / static_cast<double>(mesh.ranks); }
};
const char* name(MoeRow::Kind kind);

struct MoeTable {
  ModelSize size;
  std::int64_t parameters = 0;
  double active_parameters = 0;    // that a token is multiplied with
  std::vector<MoeRow> rows;
};

struct MoeResult {
  MoeOptions options;
  std::string device;
  std::int64_t devices = 0;    // ranks that can be measured
  int threads = 0;             // of a rank on the CPU
  std::vector<MoeTable> tables;
  bool interrupted = false;
  bool failed() const;
};

// `each` hears of every size when it is done; of what an interrupt left of the last one, too.
MoeResult run_moe(const MoeOptions& options, const std::atomic<bool>& stop, const std::function<void(const MoeResult&)>& each);

std::string moe_text(const MoeTable& table);
// How the numbers are to be read, line by line.
std::vector<std::string> moe_notes(const MoeResult& result);
// results.json, table.md, index.html into options.output.
void write_moe(const MoeResult& result);

}    // namespace sheaf
