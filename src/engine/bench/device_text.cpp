#include "engine/bench/device_text.h"

#include <unistd.h>

#include <algorithm>
#include <thread>

#include "base/text.h"
#include "runtime/device.h"
#include "runtime/device_info.h"

namespace sheaf {

std::int64_t num_devices(DeviceKind kind) {
  return kind == DeviceKind::cuda ? std::ssize(gpu_descriptions()) : std::max<std::int64_t>(1, std::thread::hardware_concurrency());
}

std::int64_t device_bytes(DeviceKind kind) {
  return kind == DeviceKind::cuda ? gpu_bytes() : static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
}

std::string device_text(const std::string& device) {
  if (chosen_device(device) == DeviceKind::cpu) return fmt::format("cpu, {} threads", std::thread::hardware_concurrency());
  const auto gpus = gpu_descriptions();
  return fmt::format("{} × {}", gpus.size(), gpus.at(0));
}

}    // namespace sheaf
