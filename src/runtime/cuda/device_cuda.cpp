#include "runtime/cuda/device_cuda.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <mutex>

#include "comm/cuda/nccl.h"

namespace sheaf {
namespace {

// Several ranks on one GPU: its memory is everyone's.
const DeviceCopy kCudaCopy = {[](void* dst, const void* src, std::int64_t bytes) {
                                C10_CUDA_CHECK(cudaMemcpyAsync(dst, src, static_cast<std::size_t>(bytes), cudaMemcpyDefault,
                                                               c10::cuda::getCurrentCUDAStream().stream()));
                              },
                              [] { C10_CUDA_CHECK(cudaStreamSynchronize(c10::cuda::getCurrentCUDAStream().stream())); }};

// A GPU for each rank; the host side goes between the threads. An end is made by the thread that uses it first, which is its rank's.
class NcclRanks final : public RankTransports {
 public:
  NcclRanks(int count, double timeout_s) : world_(count, timeout_s), timeout_s_(timeout_s) {}
  Transport& at(int rank) override {
    const std::lock_guard lock(mutex_);
    auto& end = ends_[rank];
    if (!end) end = std::make_unique<NcclTransport>(world_.at(rank), rank, timeout_s_);
    return *end;
  }

 private:
  LocalWorld world_;
  double timeout_s_;
  std::mutex mutex_;
  std::map<int, std::unique_ptr<NcclTransport>> ends_;
};

// One process, one rank: NCCL, and the transport that it is set up over.
class ProcessNccl final : public Transport {
 public:
  ProcessNccl(std::unique_ptr<Transport> host, int device, double timeout_s) : host_(std::move(host)), nccl_(*host_, device, timeout_s) {}
  std::string_view name() const override { return nccl_.name(); }
  int rank() const override { return nccl_.rank(); }
  int size() const override { return nccl_.size(); }
  void exchange(const Group& group, std::span<const ConstBytes> send, std::span<const Bytes> recv, std::string_view what) override {
    nccl_.exchange(group, send, recv, what);
  }
  bool reduces() const override { return nccl_.reduces(); }
  void all_reduce(const Group& group, void* data, std::int64_t count, DType dtype, Reduction reduction, std::string_view what) override {
    nccl_.all_reduce(group, data, count, dtype, reduction, what);
  }
  void reduce_scatter(const Group& group, const void* in, void* out, std::int64_t count, DType dtype, Reduction reduction,
                      std::string_view what) override {
    nccl_.reduce_scatter(group, in, out, count, dtype, reduction, what);
  }
  void all_gather(const Group& group, const void* in, void* out, std::int64_t count, std::string_view what) override {
    nccl_.all_gather(group, in, out, count, what);
  }
  void begin_batch() override { nccl_.begin_batch(); }
  void end_batch() override { nccl_.end_batch(); }
  void prepare(const Group& group) override { nccl_.prepare(group); }
  bool in_stream_order() const override { return true; }
  void check() override { nccl_.check(); }
  void wait() override { nccl_.wait(); }
  Transport& host() override { return *host_; }
  void abort(const std::string& why) override { nccl_.abort(why); }

 private:
  std::unique_ptr<Transport> host_;
  NcclTransport nccl_;
};

}    // namespace

int num_gpus() { return c10::cuda::device_count(); }

void take_gpu(int index) { c10::cuda::set_device(static_cast<c10::DeviceIndex>(index)); }

std::unique_ptr<RankTransports> make_gpu_transports(int count, double timeout_s) {
  if (count <= num_gpus()) return std::make_unique<NcclRanks>(count, timeout_s);
  return make_thread_transports(count, timeout_s, kCudaCopy);
}

std::unique_ptr<Transport> make_process_nccl(std::unique_ptr<Transport> host, int device_index, double timeout_s) {
  return std::make_unique<ProcessNccl>(std::move(host), device_index, timeout_s);
}

}    // namespace sheaf
