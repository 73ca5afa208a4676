#pragma once
// A training run as part of a benchmark: what it threw is a result like any other.
#include <string>

#include "base/json.h"
#include "engine/trainer.h"

namespace sheaf {

enum class RunEnd { finished, interrupted, failed };
struct QuietRun {
  RunEnd end = RunEnd::finished;
  std::string error;    // of a failed one, in one line
  double seconds = 0;
};

// `run`: the contents of a run file. flags.watch must be set.
QuietRun run_quietly(const Json& run, const TrainFlags& flags, const std::atomic<bool>& stop);

const char* name(RunEnd end);

// FOLDER itself if it is given: UserError where it holds `mark`. Else out/NAME-N, the first N that is free.
std::string fresh_folder(const std::string& given, const std::string& name, const std::string& mark);

// Removed at the end, with everything in it.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(std::string path);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}    // namespace sheaf
