#pragma once
// One line on stderr while many runs are made.
#include <string>

#include "engine/progress_line.h"

namespace sheaf {

// Work is measured in whatever unit makes runs comparable before they were timed.
class BenchProgress {
 public:
  explicit BenchProgress(double all_work) : all_(all_work) {}
  void begin(std::string what, double work) { what_ = std::move(what), work_ = work; }
  void say(const std::string& doing);
  void step(std::int64_t step, std::int64_t steps, const std::string& more);
  void end() { done_ += work_; }
  void clear() { line_.clear(); }    // something else is printed next

 private:
  double all_, done_ = 0, work_ = 0;
  std::string what_;
  ProgressLine line_{ProgressLine::AtEnd::goes};
};

}    // namespace sheaf
