#pragma once
// How many of the rows of a layer belong to experts up to some: counted on the device, read by the host when it needs them. The copy is
// into pinned memory, so nobody waits for it but who asks.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace sheaf {

class RowCounts {
 public:
  RowCounts() = default;
  // up_to: experts. more: numbers that lie behind those counted and go to the host with them.
  RowCounts(const std::vector<std::int32_t>& up_to, std::int64_t more, at::Device device);

  bool defined() const { return device_.defined(); }
  // expert: i32, sorted. On the calling thread's stream; allocates nothing.
  void count(const at::Tensor& expert);
  void to_host() { host_.copy_(device_, /*non_blocking=*/true); }
  std::int32_t* on_device() { return device_.data_ptr<std::int32_t>(); }
  // Once the copy is done.
  const std::int32_t* on_host() const { return host_.const_data_ptr<std::int32_t>(); }

 private:
  at::Tensor up_to_, device_, counted_, host_;
};

}    // namespace sheaf
