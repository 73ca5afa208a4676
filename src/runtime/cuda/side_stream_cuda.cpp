#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <vector>

#include "runtime/side_stream.h"

namespace sheaf {
namespace {

class CudaSideStream final : public SideStream {
 public:
  explicit CudaSideStream(int device)
      : side_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, static_cast<c10::DeviceIndex>(device))) {
    C10_CUDA_CHECK(cudaEventCreateWithFlags(&begin_, cudaEventDisableTiming));
  }
  ~CudaSideStream() override {
    cudaEventDestroy(begin_);
    for (const cudaEvent_t event : free_) cudaEventDestroy(event);
    for (const auto& [id, event] : under_way_) cudaEventDestroy(event);
  }

  void run(std::size_t id, const std::function<void()>& work) override {
    C10_CUDA_CHECK(cudaEventRecord(begin_, main().stream()));
    C10_CUDA_CHECK(cudaStreamWaitEvent(side_.stream(), begin_, 0));
    {
      const c10::cuda::CUDAStreamGuard guard(side_);
      work();
    }
    if (free_.empty()) {
      cudaEvent_t fresh{};
      C10_CUDA_CHECK(cudaEventCreateWithFlags(&fresh, cudaEventDisableTiming));
      free_.push_back(fresh);
    }
    C10_CUDA_CHECK(cudaEventRecord(free_.back(), side_.stream()));
    under_way_[id] = free_.back();
    free_.pop_back();
  }

  void wait_for(std::size_t id) override {
    const auto found = under_way_.find(id);
    if (found == under_way_.end()) return;
    C10_CUDA_CHECK(cudaStreamWaitEvent(main().stream(), found->second, 0));
    free_.push_back(found->second);
    under_way_.erase(found);
  }

  void wait_for_all() override {
    while (!under_way_.empty()) wait_for(under_way_.begin()->first);
  }

  bool done(std::size_t id) override {
    const auto found = under_way_.find(id);
    if (found == under_way_.end()) return true;
    const cudaError_t state = cudaEventQuery(found->second);
    if (state != cudaErrorNotReady) C10_CUDA_CHECK(state);
    return state == cudaSuccess;
  }

 private:
  c10::cuda::CUDAStream main() const { return c10::cuda::getCurrentCUDAStream(side_.device_index()); }

  c10::cuda::CUDAStream side_;
  cudaEvent_t begin_{};
  std::map<std::size_t, cudaEvent_t> under_way_;
  std::vector<cudaEvent_t> free_;
};

}    // namespace

std::unique_ptr<SideStream> make_side_stream(int device_index) { return std::make_unique<CudaSideStream>(device_index); }

}    // namespace sheaf
