#include "runtime/row_counts.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/searchsorted.h>

#include <algorithm>

namespace sheaf {

RowCounts::RowCounts(const std::vector<std::int32_t>& up_to, std::int64_t more, at::Device device) {
  const auto n = static_cast<std::int64_t>(up_to.size());
  const at::TensorOptions ints = at::TensorOptions().dtype(at::kInt), on_device = ints.device(device);
  at::Tensor bounds = at::empty({n}, ints);
  std::copy(up_to.begin(), up_to.end(), bounds.data_ptr<std::int32_t>());
  up_to_ = bounds.to(device);
  device_ = at::empty({n + more}, on_device);
  counted_ = device_.narrow(0, 0, n);
  host_ = at::empty({n + more}, ints.pinned_memory(device.is_cuda()));
}

void RowCounts::count(const at::Tensor& expert) {
  if (expert.numel() == 0)
    counted_.zero_();
  else
    at::searchsorted_out(counted_, expert.view({-1}), up_to_, /*out_int32=*/true, /*right=*/true);
}

}    // namespace sheaf
