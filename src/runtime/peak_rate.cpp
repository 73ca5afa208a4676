#include "runtime/peak_rate.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "ops/aten.h"
#include "runtime/scratch.h"

namespace sheaf {
namespace {

at::TensorOptions options_of(DeviceKind device, at::ScalarType type) {
  return at::TensorOptions().dtype(type).device(device == DeviceKind::cpu ? at::kCPU : at::kCUDA);
}

// Of one call; the best of three bursts. `result`: what the call writes.
double best_seconds(const at::Tensor& result, const std::function<void()>& call) {
  const auto wait = [&] { result.view({-1}).narrow(0, 0, 1).cpu(); };
  constexpr int kRepeats = 3;
  double best = 0;
  for (int burst = 0; burst < 3; ++burst) {
    wait();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kRepeats; ++i) call();
    wait();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / kRepeats;
    best = burst == 0 ? seconds : std::min(best, seconds);
  }
  return best;
}

double measured_copy_rate(DeviceKind device) {
  const at::Tensor from = at::zeros({device == DeviceKind::cpu ? 64 << 20 : 256 << 20}, options_of(device, at::kByte));
  at::Tensor to = at::empty_like(from);
  to.copy_(from);
  return 2 * static_cast<double>(from.nbytes()) / best_seconds(to, [&] { to.copy_(from); });
}

}    // namespace

double measured_matmul_rate(DeviceKind device, DType dtype) {
  install_scratch_allocators();    // before the first tensor on a GPU
  const c10::InferenceMode no_tape;
  const std::int64_t n = device == DeviceKind::cpu ? 768 : 8192;
  const at::TensorOptions options = options_of(device, scalar_type(dtype));
  const at::Tensor a = at::randn({n, n}, options), b = at::randn({n, n}, options);
  at::Tensor c = at::mm(a, b);
  return 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / best_seconds(c, [&] { at::mm_out(c, a, b); });
}

DeviceRates measured_rates(DeviceKind device, DType compute) {
  DeviceRates rates;
  for (const DType dtype : {DType::fp32, compute})
    if (!rates.flops.contains(dtype)) rates.flops[dtype] = measured_matmul_rate(device, dtype);
  const c10::InferenceMode no_tape;
  rates.bytes = measured_copy_rate(device);
  return rates;
}

double DeviceRates::floor(double flops_wanted, double bytes_wanted, DType dtype) const {
  const auto measured = flops.find(dtype);
  return std::max(flops_wanted / (measured == flops.end() ? flops.at(DType::fp32) : measured->second), bytes_wanted / bytes);
}

}    // namespace sheaf
