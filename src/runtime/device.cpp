#include "runtime/device.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "comm/local.h"
#include "comm/mpi.h"
#include "comm/store.h"
#include "runtime/cuda/device_cuda.h"

namespace sheaf {

#ifndef SHEAF_CUDA    // then nobody asks for a GPU: check_device has refused it
int num_gpus() { return 0; }
void take_gpu(int) {}
std::unique_ptr<RankTransports> make_gpu_transports(int, double) { return nullptr; }
std::unique_ptr<Transport> make_process_nccl(std::unique_ptr<Transport> host, int, double) { return host; }
#endif

void check_device(DeviceKind device) {
  if (device == DeviceKind::cpu) return;
#ifndef SHEAF_CUDA
  user_error("device 'cuda': this is the CPU build of sheaf; `make cuda` builds the other one");
#else
  if (!at::globalContext().hasCUDA())
    user_error("device 'cuda': no usable NVIDIA GPU is present (see nvidia-smi); `--device cpu` runs without one");
#endif
}

DeviceKind chosen_device(const std::string& name) {
  DeviceKind device = name == "cuda" ? DeviceKind::cuda : DeviceKind::cpu;
#ifdef SHEAF_CUDA
  if (name.empty() && at::globalContext().hasCUDA()) device = DeviceKind::cuda;
#endif
  check_device(device);
  return device;
}

void enter_rank_thread(DeviceKind device, int ranks_here, int device_index, int threads) {
  if (threads == 0 && ranks_here > 1) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / ranks_here);
  if (threads > 0) at::set_num_threads(threads);
  if (device == DeviceKind::cuda) take_gpu(device_index);
}

int device_of_rank(DeviceKind device, int local_rank) { return device == DeviceKind::cuda ? local_rank % std::max(1, num_gpus()) : 0; }

std::unique_ptr<RankTransports> make_thread_transports(int count, double timeout_s, const DeviceCopy& copy) {
  struct Threads final : RankTransports {
    LocalWorld world;
    Threads(int n, double t, const DeviceCopy& c) : world(n, t, c) {}
    Transport& at(int rank) override { return world.at(rank); }
  };
  return std::make_unique<Threads>(count, timeout_s, copy);
}

std::unique_ptr<RankTransports> make_local_transports(DeviceKind device, int count, double timeout_s) {
  return device == DeviceKind::cuda ? make_gpu_transports(count, timeout_s) : make_thread_transports(count, timeout_s, kHostCopy);
}

std::unique_ptr<Transport> make_process_transport(const Launch& launch, DeviceKind device, double timeout_s) {
  const bool torchrun = launch.by == Launch::By::torchrun;
  if (torchrun && device == DeviceKind::cpu)
    user_error(
        "torchrun started {} processes, and on the CPU ranks meet over MPI: start them with mpirun or srun, or one process with "
        "--nproc {}",
        launch.size, launch.size);
  auto host = torchrun ? make_store_transport(launch, timeout_s) : make_mpi_transport(timeout_s);
  if (device == DeviceKind::cpu) return host;
  return make_process_nccl(std::move(host), device_of_rank(device, std::max(0, launch.local_rank)), timeout_s);
}

}    // namespace sheaf
