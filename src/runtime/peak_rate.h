#pragma once
#include <map>

#include "runtime/kernels/kernel_table.h"

namespace sheaf {

// What a large square matmul in this dtype reaches on the device now, in flop/s: the yardstick of the step line. Takes about 0.1 s.
double measured_matmul_rate(DeviceKind device, DType dtype);

// What the device reaches now. Takes about 0.3 s and, for a moment, 0.5 GiB.
struct DeviceRates {
  std::map<DType, double> flops;    // flop/s of a large matmul: fp32, and the dtype that was asked for
  double bytes = 0;                 // bytes/s of a large copy, what is read and what is written together

  // The shortest time in seconds for work that reaches both rates. Dtypes that were not measured count as fp32.
  double floor(double flops_wanted, double bytes_wanted, DType dtype) const;
};
DeviceRates measured_rates(DeviceKind device, DType compute);

}    // namespace sheaf
