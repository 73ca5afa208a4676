// CUDA's side of scratch.cpp: LibTorch's hook for allocators of one's own. On every road from a tensor to memory LibTorch calls allocate
// and release below, with the current device of the thread; any thread may do so at any time.
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/cuda/CUDAPluggableAllocator.h>

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "runtime/scratch.h"

namespace sheaf {
namespace {

// Blocks that are used on one stream each, so that whoever gets one back next comes behind who had it before.
class KeptMemory {
 public:
  // nullptr: there is none that fits.
  void* take(std::size_t bytes, int device, cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    auto& free = free_[{device, stream}];
    const auto found = free.lower_bound(bytes);
    if (found == free.end() || found->first > 2 * bytes) return nullptr;
    void* const pointer = found->second;
    free.erase(found);
    return pointer;
  }
  void add(void* pointer, std::size_t bytes, int device, cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    blocks_[pointer] = {bytes, {device, stream}};
  }
  // False: not ours.
  bool give_back(void* pointer) {
    const std::lock_guard lock(mutex_);
    const auto found = blocks_.find(pointer);
    if (found == blocks_.end()) return false;
    free_[found->second.where].emplace(found->second.bytes, pointer);
    return true;
  }
  void drop(int device) {
    std::vector<void*> dropped;
    {
      const std::lock_guard lock(mutex_);
      for (auto& [where, free] : free_) {
        if (where.first != device) continue;
        for (const auto& [bytes, pointer] : free) dropped.push_back(pointer), blocks_.erase(pointer);
        free.clear();
      }
    }
    // Not under the lock: cudaFree waits for the device, which may wait for what the thread of another one has yet to launch.
    for (void* const pointer : dropped)
      if (cudaFree(pointer) != cudaSuccess) cudaGetLastError();
  }

 private:
  using Where = std::pair<int, cudaStream_t>;
  struct Block {
    std::size_t bytes;
    Where where;
  };
  std::mutex mutex_;
  std::map<void*, Block> blocks_;
  std::map<Where, std::multimap<std::size_t, void*>> free_;
};

// Never destroyed: tensors of static life may outlast it.
KeptMemory& kept_memory() {
  static auto* const kept = new KeptMemory;
  return *kept;
}

// Numbers of rows differ from step to step; rounded up by an eighth at most, what one step took serves the next.
std::size_t kept_bytes(std::size_t bytes) {
  const std::size_t step = std::max<std::size_t>(512, std::bit_floor(bytes) / 8);
  return (bytes + step - 1) / step * step;
}

void* fresh(std::size_t bytes, int device) {
  void* pointer = nullptr;
  cudaError_t error = cudaMalloc(&pointer, bytes);
  if (error == cudaErrorMemoryAllocation) {
    kept_memory().drop(device);
    error = cudaMalloc(&pointer, bytes);
  }
  cudaGetLastError();    // an out of memory is not sticky; the next call must not report it again
  if (error == cudaSuccess) return pointer;
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  user_error("GPU {}: {} of memory are wanted at once, {} of {} are free ({}); a smaller micro-batch or a shorter sequence needs less",
             device, human_bytes(static_cast<double>(bytes)), human_bytes(static_cast<double>(free)),
             human_bytes(static_cast<double>(total)), cudaGetErrorString(error));
}

void* allocate(std::size_t bytes, int device, cudaStream_t stream) {
  if (bytes == 0) return nullptr;
  ScratchScope* scope = ScratchScope::current(DeviceKind::cuda);
  if (scope)
    if (void* pointer = scope->serve(static_cast<std::int64_t>(bytes))) return pointer;
  const std::size_t taken = KeepMemory::on() ? kept_bytes(bytes) : bytes;
  void* pointer = KeepMemory::on() ? kept_memory().take(taken, device, stream) : nullptr;
  if (!pointer) {
    pointer = fresh(taken, device);
    if (KeepMemory::on()) kept_memory().add(pointer, taken, device, stream);
    if (!scope) count_stray_allocation(DeviceKind::cuda);
  }
  if (scope) scope->note(pointer, static_cast<std::int64_t>(bytes));
  return pointer;
}

void release(void* pointer, std::size_t, int, cudaStream_t) {
  if (!pointer) return;
  if (ScratchScope* scope = ScratchScope::current(DeviceKind::cuda)) {
    if (scope->take_back(pointer)) return;
    scope->forget(pointer);
  }
  if (kept_memory().give_back(pointer)) return;
  // Waits for the device, so that no kernel still uses the memory. It fails when the process ends, and for a pointer out of a slot whose
  // row is over, which the executor has reported: the error must not be taken for that of the next launch.
  if (cudaFree(pointer) != cudaSuccess) cudaGetLastError();
}

}    // namespace

void drop_kept_memory(int device_index) { kept_memory().drop(device_index); }

void install_cuda_scratch_allocator() {
  namespace pluggable = torch::cuda::CUDAPluggableAllocator;
  pluggable::changeCurrentAllocator(pluggable::createCustomAllocator(allocate, release));
}

// LibTorch has a cuBLAS handle per thread and device, and keeps a workspace per handle and stream, taken through the allocator at the first
// product; another one for cuBLASLt, which a product with a bias uses. Taken inside of a row they would lie in its slot and live on.
void take_lasting_workspaces(DeviceKind device, int device_index) {
  if (device != DeviceKind::cuda) return;
  SHEAF_CHECK(!ScratchScope::current(DeviceKind::cuda), "lasting workspaces would come from a scratch slot");
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device_index));
  thread_local std::set<std::pair<int, cudaStream_t>> done;
  if (!done.emplace(device_index, c10::cuda::getCurrentCUDAStream().stream()).second) return;
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor square =
        at::zeros({32, 32}, at::TensorOptions().dtype(dtype).device(at::kCUDA, static_cast<c10::DeviceIndex>(device_index)));
    at::mm(square, square);
    at::addmm(square.select(0, 0), square, square);
  }
}

}    // namespace sheaf
