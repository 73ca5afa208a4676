#include "runtime/device_timer.h"

#include <chrono>

namespace sheaf {
namespace {

using Clock = std::chrono::steady_clock;

// Calls return when they are done.
class HostTimer final : public DeviceTimer {
 public:
  void clear() override { marks_.clear(); }
  std::size_t mark() override {
    marks_.push_back(Clock::now());
    return marks_.size() - 1;
  }
  std::vector<double> seconds() override {
    std::vector<double> out;
    out.reserve(marks_.size());
    for (const Clock::time_point mark : marks_) out.push_back(std::chrono::duration<double>(mark - marks_.front()).count());
    return out;
  }

 private:
  std::vector<Clock::time_point> marks_;
};

}    // namespace

#ifndef SHEAF_CUDA
std::unique_ptr<DeviceTimer> make_cuda_timer() { return nullptr; }
#else
std::unique_ptr<DeviceTimer> make_cuda_timer();    // runtime/cuda
#endif

std::unique_ptr<DeviceTimer> make_device_timer(DeviceKind device) {
  return device == DeviceKind::cuda ? make_cuda_timer() : std::make_unique<HostTimer>();
}

}    // namespace sheaf
