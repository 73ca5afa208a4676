#include "runtime/device.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "comm/local.h"
#include "comm/mpi.h"

namespace sheaf {

void take_device(DeviceKind device, int device_index);    // runtime/cuda; does nothing on the CPU

void enter_rank_thread(DeviceKind device, int ranks_here, int device_index) {
  if (ranks_here > 1) at::set_num_threads(std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / ranks_here));
  take_device(device, device_index);
}

#ifndef SHEAF_CUDA

void take_device(DeviceKind, int) {}

int device_of_rank(DeviceKind, int) { return 0; }

std::unique_ptr<RankTransports> make_local_transports(DeviceKind, int count, double timeout_s) {
  struct Threads : RankTransports {
    LocalWorld world;
    Threads(int n, double t) : world(n, t) {}
    Transport& at(int rank) override { return world.at(rank); }
  };
  return std::make_unique<Threads>(count, timeout_s);
}

std::unique_ptr<Transport> make_process_transport(const Launch& launch, DeviceKind, double timeout_s) {
  if (launch.by == Launch::By::torchrun)
    user_error(
        "torchrun started {} processes, and on the CPU ranks meet over MPI: start them with mpirun or srun, or one process with "
        "--nproc {}",
        launch.size, launch.size);
  return make_mpi_transport(timeout_s);
}

#endif

}    // namespace sheaf
