#pragma once
// Checkpoints of a run: a snapshot is taken between two steps, and each rank writes its part on another thread while training goes on.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "engine/ranks.h"
#include "engine/weights.h"
#include "runtime/executor.h"

namespace sheaf {

// Where a run stands after `step` updates, `committed` of which changed the weights. Rows consumed = step x train_batch_size.
struct Progress {
  std::int64_t step = 0, committed = 0;
};

// One on every rank; all ranks make the same calls. Errors come back on all of them.
class Saver {
 public:
  // folder: RUN/checkpoints. keep: how many complete ones stay (0: all). identity: what a resumed run must agree on. config: the model's
  // config.json; that, the dtype and the side files (opened here) make each checkpoint one that `sheaf checkpoint export` can take alone.
  Saver(const Rank& rank, std::string folder, std::int64_t keep, Json identity, Json config, const SaveOptions& model);
  ~Saver();    // waits for this rank's write in hand; what was not committed goes away

  // Copies what this rank holds of the states to the host and starts writing; waits first if the one before is still being written. What
  // went wrong with that one, or with starting this one, is returned (empty: nothing); the last complete checkpoint is untouched.
  std::string save(const Executor& executor, const Progress& progress);
  // Completes the write in hand once all ranks have written their parts. What went wrong with it.
  std::string poll();
  std::string finish();                  // waits for the write in hand and completes it
  std::int64_t last_complete() const;    // step of the newest checkpoint that this Saver completed; 0: none

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The newest complete checkpoint in the folder, removing what a killed run left unfinished; nothing if there is none. Each rank reads what
// it holds, whatever mesh wrote it. A damaged one is a UserError, never skipped; so is one whose identity or model differs: the first
// difference is named.
std::optional<Progress> restore(const Rank& rank, Executor& executor, const std::string& folder, const Json& identity, const Json& config);

}    // namespace sheaf
