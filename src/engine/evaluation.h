#pragma once
// The loss of a model on rows that it does not train on.
#include <functional>
#include <span>

#include "base/json.h"
#include "engine/ranks.h"
#include "engine/row_buffers.h"
#include "passes/pass.h"

namespace sheaf {

struct Evaluation {
  double loss = 0;    // mean over the predictions that count, nats
  std::int64_t tokens = 0;
  double seconds = 0;
  double perplexity() const;    // e^loss
};

struct EvaluatorOptions {
  DType compute = DType::fp32;
  DeviceKind device = DeviceKind::cpu;
  bool deterministic = true;
  std::int64_t rows_at_once = 1;
  bool cuda_graphs = true;    // where they are possible
  // A training step on the same device: its weights are scored where they lie, without a copy.
  const Executor* beside = nullptr;
  // On a mesh: this rank, and what `anchor` is told; rows_at_once are those of all ranks together.
  Rank rank;
  Options placement = {.tile_rows = 2048};
};

class Evaluator {
 public:
  // Keeps a reference to the rows. `model`: a config.json, `where` it is from for errors.
  Evaluator(const Json& model, const std::string& where, const RowSet& rows, const EvaluatorOptions& options);

  const RowSet& rows() const { return rows_; }
  Executor& executor() { return executor_; }    // without `beside` the weights are loaded into it

  // Losses of one batch, row-major [rows, seq_len]: minus the log-probability of each target; 0 where the target is < 0 and does not count.
  struct Batch {
    std::int64_t first_row = 0, rows = 0;
    std::span<const float> nll;
    std::span<const std::int32_t> targets;
  };
  // All rows in order. `stop`, if given, is asked before every batch and ends it early: then the mean is of what was done. The sum over
  // tokens is in fp64. On a mesh all ranks call it, stop at the same batch, and get the same result; a Batch then has what this rank holds.
  Evaluation run(const std::function<void(const Batch&)>& each = {}, const std::function<bool()>& stop = {});

 private:
  const RowSet& rows_;
  std::int64_t rows_at_once_;
  Rank rank_;
  Executor executor_;
  RowBuffers buffers_;
  std::vector<float> nll_;
};

}    // namespace sheaf
