#pragma once
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

// What a large square matmul in this dtype reaches on the device now, in flop/s: the yardstick of the step line. Takes about 0.1 s.
double measured_matmul_rate(DeviceKind device, DType dtype);

}    // namespace sheaf
