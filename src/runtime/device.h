#pragma once
// Devices, threads and transports of ranks.
#include <memory>
#include <string>

#include "comm/launch.h"
#include "comm/transport.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

// Throws UserError if the device is absent: what was found and how to get it.
void check_device(DeviceKind device);
// "cpu" or "cuda"; "": cuda where there is a GPU and the build knows it, else cpu. UserError: it is absent.
DeviceKind chosen_device(const std::string& name);

// First thing on a rank's thread: ranks share the cores, so `ranks_here` of them take an equal share of the threads inside ops, at least
// one; or `threads`, if that is not 0. On GPUs, `device_index` becomes the thread's current device.
void enter_rank_thread(DeviceKind device, int ranks_here, int device_index, int threads = 0);

// Ranks of a machine go round its GPUs; several may share one.
int device_of_rank(DeviceKind device, int local_rank);

// The transports of ranks that are threads of this process: nccl where each has a GPU of its own, else local.
class RankTransports {
 public:
  virtual ~RankTransports() = default;
  virtual Transport& at(int rank) = 0;
};
std::unique_ptr<RankTransports> make_local_transports(DeviceKind device, int count, double timeout_s);

// This process's transport among those that the launcher started: nccl on GPUs (set up over mpi, or over torchrun's store), else mpi.
// Throws UserError where what is needed is not installed.
std::unique_ptr<Transport> make_process_transport(const Launch& launch, DeviceKind device, double timeout_s);

}    // namespace sheaf
