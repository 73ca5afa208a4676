#pragma once
// What a run writes about itself: metrics.jsonl, tensorboard/, and what a person reads: lines in a pipe, a display on a terminal.
#include <cstdint>
#include <optional>
#include <string>

#include "engine/append_file.h"
#include "engine/event_file.h"
#include "engine/expert_load.h"
#include "engine/progress_display.h"

namespace sheaf {

struct EvalRecord {
  std::int64_t step = 0;    // the weights are those after this update
  double loss = 0;          // nats a token
  double perplexity = 0;    // exp(loss)
  std::int64_t tokens = 0;
  double seconds = 0;
};

struct StepRecord {
  std::int64_t step = 0;    // from 1
  double loss = 0, grad_norm = 0;
  double lr = 0;
  std::int64_t tokens = 0;    // valid tokens of this step
  double seconds = 0;
  std::int64_t peak_bytes = 0;
  bool committed = true;
  std::optional<double> aux_loss;         // part of the loss
  std::vector<ExpertLoad> loads;          // by routed layer
  double peak_share = 0;                   // of the device's matmul rate; 0: unknown
  std::int64_t last_checkpoint = 0;        // step of the newest complete checkpoint; 0: none
  std::optional<EvalRecord> evaluation;    // made after this update: its numbers go into the update's object
};

struct RunLogOptions {
  std::int64_t num_steps = 0;    // of the whole run, for the ETA
  std::int64_t log_every = 1;
  std::int64_t done = 0;               // steps of the run that is resumed: their lines stay, later ones go
  bool stop_on_write_error = false;    // else what cannot be written waits in memory
  bool quiet = false;                  // files only
};

class RunLog {
 public:
  // Opens metrics.jsonl and a file in tensorboard/ of `folder`.
  RunLog(const std::string& folder, const RunLogOptions& options);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  void add(const StepRecord& record);
  // A line of its own, above a display that is being redrawn.
  void say(const std::string& line);
  // The end of the display; UserError if some lines could never be written.
  void finish();
  // Steps, tokens, time, tokens/s, first and last loss, best evaluation, peak memory, where everything is. Several lines.
  std::string summary() const;

 private:
  void cut_metrics(const std::string& path);
  void write(const StepRecord& record);
  void write_failed(const std::string& error);
  std::string step_line(const StepRecord& record) const;

  std::string folder_;
  RunLogOptions options_;
  std::optional<AppendFile> metrics_;
  std::optional<EventFile> events_;
  std::string write_error_;    // of the last write; "": everything is in the files
  bool on_terminal_;
  ProgressDisplay display_;
  ProgressState state_;
  double elapsed_ = 0, recent_seconds_ = 0, last_loss_ = 0;
  std::optional<double> first_loss_;
  std::optional<EvalRecord> best_;
  std::int64_t tokens_ = 0, steps_ = 0, held_ = 0;
};

}    // namespace sheaf
