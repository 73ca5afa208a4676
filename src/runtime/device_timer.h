#pragma once
// When a device came to points of the work that it was given: without waiting for it in between.
#include <cstddef>
#include <memory>
#include <vector>

#include "runtime/kernels/kernel_table.h"

namespace sheaf {

class DeviceTimer {
 public:
  virtual ~DeviceTimer() = default;
  virtual void clear() = 0;
  // Marks where the calling thread's stream is; the mark's number, from 0 on since clear().
  virtual std::size_t mark() = 0;
  // When each mark was reached, in seconds after the first. Waits until the last one is.
  virtual std::vector<double> seconds() = 0;
};

std::unique_ptr<DeviceTimer> make_device_timer(DeviceKind device);

}    // namespace sheaf
