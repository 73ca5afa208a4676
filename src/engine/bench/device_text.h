#pragma once
// The device of a benchmark, and how much of it there is.
#include <cstdint>
#include <string>

#include "runtime/kernels/kernel_table.h"

namespace sheaf {

std::int64_t num_devices(DeviceKind kind);             // that ranks can have one each of: GPUs, or the processor's threads
std::int64_t device_bytes(DeviceKind kind);            // memory of one GPU; of the machine
std::string device_text(const std::string& device);    // "2 × NVIDIA H200, 139.8 GiB, compute 9.0"; "cpu, 8 threads"

}    // namespace sheaf
