#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <mutex>

#include "base/error.h"
#include "comm/cuda/nccl.h"
#include "comm/local.h"
#include "comm/mpi.h"
#include "comm/store.h"
#include "runtime/device.h"

namespace sheaf {

void take_device(DeviceKind device, int device_index);

namespace {

// Several ranks on one GPU: its memory is everyone's.
const DeviceCopy kCudaCopy = {[](void* dst, const void* src, std::int64_t bytes) {
                                C10_CUDA_CHECK(cudaMemcpyAsync(dst, src, static_cast<std::size_t>(bytes), cudaMemcpyDefault,
                                                               c10::cuda::getCurrentCUDAStream().stream()));
                              },
                              [] { C10_CUDA_CHECK(cudaStreamSynchronize(c10::cuda::getCurrentCUDAStream().stream())); }};

class LocalRanks final : public RankTransports {
 public:
  LocalRanks(int count, double timeout_s, const DeviceCopy& copy) : world_(count, timeout_s, copy) {}
  Transport& at(int rank) override { return world_.at(rank); }

 private:
  LocalWorld world_;
};

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
  void check() override { nccl_.check(); }
  void wait() override { nccl_.wait(); }
  Transport& host() override { return *host_; }
  void abort(const std::string& why) override { nccl_.abort(why); }

 private:
  std::unique_ptr<Transport> host_;
  NcclTransport nccl_;
};

}    // namespace

void take_device(DeviceKind device, int device_index) {
  if (device == DeviceKind::cuda) c10::cuda::set_device(static_cast<c10::DeviceIndex>(device_index));
}

int device_of_rank(DeviceKind device, int local_rank) {
  return device == DeviceKind::cuda ? local_rank % std::max<int>(1, c10::cuda::device_count()) : 0;
}

std::unique_ptr<RankTransports> make_local_transports(DeviceKind device, int count, double timeout_s) {
  if (device == DeviceKind::cpu) return std::make_unique<LocalRanks>(count, timeout_s, kHostCopy);
  if (count <= c10::cuda::device_count()) return std::make_unique<NcclRanks>(count, timeout_s);
  return std::make_unique<LocalRanks>(count, timeout_s, kCudaCopy);
}

std::unique_ptr<Transport> make_process_transport(const Launch& launch, DeviceKind device, double timeout_s) {
  if (device == DeviceKind::cpu && launch.by == Launch::By::torchrun)
    user_error(
        "torchrun started {} processes, and on the CPU ranks meet over MPI: start them with mpirun or srun, or one process with "
        "--nproc {}",
        launch.size, launch.size);
  auto host = launch.by == Launch::By::torchrun ? make_store_transport(launch, timeout_s) : make_mpi_transport(timeout_s);
  if (device == DeviceKind::cpu) return host;
  return std::make_unique<ProcessNccl>(std::move(host), device_of_rank(device, std::max(0, launch.local_rank)), timeout_s);
}

}    // namespace sheaf
