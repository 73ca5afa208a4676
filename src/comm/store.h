#pragma once
// Transport `store`: small messages between processes that torchrun started, through LibTorch's TCPStore at MASTER_ADDR:MASTER_PORT. The
// control plane of runs whose tensors go over nccl, not fit for tensors itself.
#include <memory>

#include "comm/launch.h"
#include "comm/transport.h"

namespace sheaf {

// Connects; rank 0 hosts the store unless torchrun's agent does. UserError with address and port if the port is taken or nobody answers
// within timeout_s seconds, which is also how long one call may wait. The destructor of the host waits until the others are done, as long
// as that, but only a moment after a failure.
std::unique_ptr<Transport> make_store_transport(const Launch& launch, double timeout_s);

}    // namespace sheaf
