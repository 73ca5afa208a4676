#pragma once
#include <string>
#include <vector>

#include "ir/graph.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

// Lines for the banner: calls of this rank for which the device has no kernel, of ops whose composition of smaller ones is no match for it
// (attention, products per expert): much slower, and attention with memory for whole scores. Each kind once; nothing for the CPU.
std::vector<std::string> slow_calls(const Graph& graph, std::int64_t rank, DeviceKind device, bool deterministic);

}    // namespace sheaf
