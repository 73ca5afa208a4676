#include "runtime/peak_rate.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>

#include "ops/aten.h"
#include "runtime/scratch.h"

namespace sheaf {

double measured_matmul_rate(DeviceKind device, DType dtype) {
  install_scratch_allocators();    // before the first tensor on a GPU
  const c10::InferenceMode no_tape;
  const std::int64_t n = device == DeviceKind::cpu ? 768 : 8192;
  const auto options = at::TensorOptions().dtype(scalar_type(dtype)).device(device == DeviceKind::cpu ? at::kCPU : at::kCUDA);
  const at::Tensor a = at::randn({n, n}, options), b = at::randn({n, n}, options);
  at::Tensor c = at::mm(a, b);
  const auto wait = [&] { c.narrow(0, 0, 1).narrow(1, 0, 1).cpu(); };
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    wait();
    const auto begin = std::chrono::steady_clock::now();
    const int repeats = 3;
    for (int r = 0; r < repeats; ++r) at::mm_out(c, a, b);
    wait();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    best = std::max(best, repeats * 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / seconds);
  }
  return best;
}

}    // namespace sheaf
