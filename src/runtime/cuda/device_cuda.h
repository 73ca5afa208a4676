#pragma once
// What runtime/device.cpp asks of CUDA.
#include "comm/local.h"
#include "runtime/device.h"

namespace sheaf {

int num_gpus();
void take_gpu(int index);    // the calling thread's current device from now on
std::unique_ptr<RankTransports> make_gpu_transports(int count, double timeout_s);
// NCCL between processes, set up over `host`.
std::unique_ptr<Transport> make_process_nccl(std::unique_ptr<Transport> host, int device_index, double timeout_s);

// Of device.cpp: ranks that are threads, their bytes copied by `copy`.
std::unique_ptr<RankTransports> make_thread_transports(int count, double timeout_s, const DeviceCopy& copy);

}    // namespace sheaf
