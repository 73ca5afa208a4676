#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include "runtime/device_timer.h"

namespace sheaf {
namespace {

// Events of the current device, kept for the next time.
class CudaTimer final : public DeviceTimer {
 public:
  ~CudaTimer() override {
    for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  void clear() override { used_ = 0; }
  std::size_t mark() override {
    if (used_ == events_.size()) {
      cudaEvent_t fresh{};
      C10_CUDA_CHECK(cudaEventCreate(&fresh));
      events_.push_back(fresh);
    }
    C10_CUDA_CHECK(cudaEventRecord(events_[used_], c10::cuda::getCurrentCUDAStream().stream()));
    return used_++;
  }
  std::vector<double> seconds() override {
    std::vector<double> out;
    for (std::size_t i = 0; i < used_; ++i) {
      C10_CUDA_CHECK(cudaEventSynchronize(events_[i]));    // streams are not ordered among each other
      float milliseconds = 0;
      C10_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, events_[0], events_[i]));
      out.push_back(static_cast<double>(milliseconds) * 1e-3);
    }
    return out;
  }

 private:
  std::vector<cudaEvent_t> events_;
  std::size_t used_ = 0;
};

}    // namespace

std::unique_ptr<DeviceTimer> make_cuda_timer() { return std::make_unique<CudaTimer>(); }

}    // namespace sheaf
