#pragma once
// What a run writes about itself: metrics.jsonl, and the step line that a person reads.
#include <cstdint>
#include <cstdio>
#include <string>

namespace sheaf {

struct StepRecord {
  std::int64_t step = 0;    // from 1
  double loss = 0, grad_norm = 0;
  double lr = 0;
  std::int64_t tokens = 0;    // valid tokens of this step
  double seconds = 0;
  std::int64_t peak_bytes = 0;
  bool committed = true;
  double peak_share = 0;    // of the device's matmul rate; 0: unknown
};

class RunLog {
 public:
  // Opens metrics.jsonl in `folder`, keeping the lines of the first `done` steps. num_steps: of the whole run, for the ETA.
  RunLog(const std::string& folder, std::int64_t num_steps, std::int64_t log_every, std::int64_t done = 0);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  void add(const StepRecord& record);
  // A line of its own, below a progress line that is being rewritten.
  void say(const std::string& line);
  std::string summary() const;    // steps, tokens, time, tokens/s, first and last loss

 private:
  std::string folder_;
  std::FILE* metrics_;
  std::int64_t num_steps_, log_every_;
  bool terminal_, line_open_ = false;
  double elapsed_ = 0, recent_seconds_ = 0, first_loss_ = 0, last_loss_ = 0;
  std::int64_t tokens_ = 0, steps_ = 0, held_ = 0;
};

}    // namespace sheaf
