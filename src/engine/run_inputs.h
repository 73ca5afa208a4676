#pragma once
// What a run reads before its first step: its model's configuration, its data, and the step's graph that follows from both.
#include <atomic>
#include <optional>
#include <string>

#include "checkpoint/hf_folder.h"
#include "engine/config.h"
#include "engine/corpus.h"
#include "engine/ranks.h"
#include "engine/step_graph.h"
#include "engine/trainer.h"
#include "ir/graph.h"
#include "models/model_config.h"

namespace sheaf {

// The model's configuration, of its folder, of a file, or as it stands in the run's; and where it is from, for messages.
Json read_model_config(const ModelSource& source);
std::string origin_of(const ModelSource& source);

struct SourceModel {
  Json config;
  std::optional<HfFolder> folder;
  DType dtype = DType::fp32;    // of the weights in the input; the output has the same
};

// What the ranks of a process share: read once, then only looked at. Nothing is written before everything that can be refused was seen.
struct RunInputs {
  const RunConfig& config;
  const TrainFlags& flags;
  const std::atomic<bool>& stop;
  DeviceKind device;
  SourceModel source;
  std::string where;    // the model's configuration is from
  ModelConfig model;
  std::optional<Corpus> corpus, eval_corpus;
  Graph step;
  std::string chosen;    // for the banner: what run.memory_limit led to

  // The first three stay; local_rank: the process's, among those of its machine. Throws UserError for whatever cannot be read or does not
  // fit, and if the output folder already holds a run.
  RunInputs(const LoadedConfig& loaded, const TrainFlags& flags, const std::atomic<bool>& stop, int local_rank);

  bool quiet() const { return static_cast<bool>(flags.watch); }
  DType compute() const { return config.bf16 ? DType::bf16 : DType::fp32; }
  bool deterministic() const { return is_deterministic(config, device); }
  const RowSet* held_out() const { return eval_corpus ? &eval_corpus->rows() : corpus->held_out(); }
};

// Ranks of several processes must have been started alike: what differs would end in numbers that mean nothing, or in a wait without end.
// UserError on all ranks, with the first difference. All ranks call it.
void expect_alike(const Rank& rank, const RunInputs& in);

}    // namespace sheaf
