#pragma once
// The calls of a step with the time that each took on the device.
#include <string_view>
#include <utility>

#include "ir/graph.h"
#include "runtime/device_timer.h"

namespace sheaf {

enum class Track {
  main,
  collectives,    // on the stream beside it
  waits           // no call: how long the main stream waited for those before `node`, or at the end of the segment
};
struct CallTime {
  Segment segment;
  std::size_t node;
  std::string_view kernel;
  Track track;
  std::int64_t micro_batch;         // 0 in prologue, first and epilogue
  double begin = 0, seconds = 0;    // `begin` from the start of the step
};

class CallTimer {
 public:
  explicit CallTimer(DeviceKind device) : timer_(make_device_timer(device)) {}
  void begin_step() {
    times_.clear(), marks_.clear();
    timer_->clear(), timer_->mark();
  }
  // Does `work`, which gives something to the calling thread's stream.
  template <class Work>
  void run(const CallTime& call, const Work& work) {
    const std::size_t begin = timer_->mark();
    work();
    marks_.emplace_back(begin, timer_->mark());
    times_.push_back(call);
  }
  // Waits for the device.
  void end_step() {
    const std::vector<double> seconds = timer_->seconds();
    for (std::size_t i = 0; i < times_.size(); ++i)
      times_[i].begin = seconds[marks_[i].first], times_[i].seconds = seconds[marks_[i].second] - times_[i].begin;
  }
  // In the order in which they were given to the device.
  const std::vector<CallTime>& times() const { return times_; }

 private:
  std::unique_ptr<DeviceTimer> timer_;
  std::vector<CallTime> times_;
  std::vector<std::pair<std::size_t, std::size_t>> marks_;    // of each of `times_`
};

}    // namespace sheaf
