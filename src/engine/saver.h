#pragma once
// Checkpoints of a run: a snapshot is taken between two steps and written by another thread while training goes on.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "engine/weights.h"
#include "runtime/executor.h"

namespace sheaf {

// Where a run stands after `step` updates, `committed` of which changed the weights. Rows consumed = step x train_batch_size.
struct Progress {
  std::int64_t step = 0, committed = 0;
};

class Saver {
 public:
  // folder: RUN/checkpoints. keep: how many complete ones stay (0: all). identity: what a resumed run must agree on. config: the model's
  // config.json; that, the dtype and the side files (opened here) make each checkpoint one that `sheaf checkpoint export` can take alone.
  Saver(std::string folder, std::int64_t keep, Json identity, Json config, const SaveOptions& model);
  ~Saver();    // waits for the write in hand

  // Copies the states to the host and starts writing; waits first if the one before is still being written. What went wrong with that one
  // is returned (empty: nothing); it left no file behind and the last complete checkpoint is untouched.
  std::string save(const Executor& executor, const Progress& progress);
  std::string finish();    // waits for the write in hand; what went wrong with it
  // Step of the newest checkpoint that this Saver completed; 0: none. Another thread is at it, so it may be newer a moment later.
  std::int64_t last_complete() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The newest complete checkpoint in the folder, removing what a killed run left unfinished; nothing if there is none. A damaged one is a
// UserError, never skipped; so is one whose identity or model differs: the first difference is named.
std::optional<Progress> restore(Executor& executor, const std::string& folder, const Json& identity, const Json& config);

}    // namespace sheaf
