// CUDA's side of scratch.cpp: LibTorch's hook for allocators of one's own. On every road from a tensor to memory LibTorch calls allocate
// and release below, with the current device of the thread; any thread may do so at any time.
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/cuda/CUDAPluggableAllocator.h>

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

// Blocks that were freed and wait for the next who wants as much, by (GPU, stream): the stream orders the two uses.
class Pools {
 public:
  void* take(std::size_t bytes, int device, cudaStream_t stream) {
    const std::size_t size = rounded(bytes);
    {
      const std::lock_guard lock(mutex_);
      auto& free = free_[{device, stream}];
      if (const auto found = free.lower_bound(size); found != free.end() && found->first <= size + size / 4) {
        void* const pointer = found->second;
        free.erase(found);
        return pointer;
      }
    }
    void* pointer = nullptr;
    if (cudaMalloc(&pointer, size) != cudaSuccess) {
      cudaGetLastError();
      release_free(device);
      if (cudaMalloc(&pointer, size) != cudaSuccess) return nullptr;
    }
    count_stray_allocation(DeviceKind::cuda);
    const std::lock_guard lock(mutex_);
    blocks_[pointer] = {size, device, stream};
    bytes_[device] += static_cast<std::int64_t>(size);
    return pointer;
  }
  bool give_back(void* pointer) {
    const std::lock_guard lock(mutex_);
    const auto found = blocks_.find(pointer);
    if (found == blocks_.end()) return false;
    free_[{found->second.device, found->second.stream}].emplace(found->second.size, pointer);
    return true;
  }
  std::int64_t bytes(int device) {
    const std::lock_guard lock(mutex_);
    return bytes_[device];
  }
  void release_free(int device) {
    std::vector<void*> released;
    {
      const std::lock_guard lock(mutex_);
      for (auto& [where, free] : free_) {
        if (where.first != device) continue;
        for (const auto& [size, pointer] : free) {
          released.push_back(pointer), blocks_.erase(pointer);
          bytes_[device] -= static_cast<std::int64_t>(size);
        }
        free.clear();
      }
    }
    // Not under the lock: cudaFree waits for the device, which may wait for what the thread of another one has yet to launch.
    for (void* const pointer : released) cudaFree(pointer);
  }

 private:
  // Steps of an eighth: numbers of rows that differ little ask for the same.
  static std::size_t rounded(std::size_t bytes) {
    std::size_t step = 512;
    while (step * 16 <= bytes) step *= 2;
    return (bytes + step - 1) / step * step;
  }
  struct Block {
    std::size_t size;
    int device;
    cudaStream_t stream;
  };
  std::mutex mutex_;
  std::map<void*, Block> blocks_;
  std::map<int, std::int64_t> bytes_;    // by GPU, of all blocks
  std::map<std::pair<int, cudaStream_t>, std::multimap<std::size_t, void*>> free_;
};
Pools& pools() {
  static Pools& all = *new Pools;    // never destroyed: at the end of the process CUDA may be gone already
  return all;
}

void* allocate(std::size_t bytes, int device, cudaStream_t stream) {
  if (bytes == 0) return nullptr;
  ScratchScope* scope = ScratchScope::current(DeviceKind::cuda);
  if (scope)
    if (void* pointer = scope->serve(static_cast<std::int64_t>(bytes))) return pointer;
  const bool pooled = allocations_are_pooled();
  void* pointer = pooled ? pools().take(bytes, device, stream) : nullptr;
  if (const cudaError_t error = pointer ? cudaSuccess : cudaMalloc(&pointer, bytes); error != cudaSuccess) {
    cudaGetLastError();    // an out of memory is not sticky; the next call must not report it again
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    user_error("GPU {}: {} of memory are wanted at once, {} of {} are free ({}); a smaller micro-batch or a shorter sequence needs less",
               device, human_bytes(static_cast<double>(bytes)), human_bytes(static_cast<double>(free)),
               human_bytes(static_cast<double>(total)), cudaGetErrorString(error));
  }
  if (scope)
    scope->note(pointer, static_cast<std::int64_t>(bytes));
  else if (!pooled)
    count_stray_allocation(DeviceKind::cuda);
  return pointer;
}

void release(void* pointer, std::size_t, int, cudaStream_t) {
  if (!pointer) return;
  if (ScratchScope* scope = ScratchScope::current(DeviceKind::cuda)) {
    if (scope->take_back(pointer)) return;
    scope->forget(pointer);
  }
  if (pools().give_back(pointer)) return;
  // Waits for the device, so that no kernel still uses the memory. It fails when the process ends, and for a pointer out of a slot whose
  // row is over, which the executor has reported: the error must not be taken for that of the next launch.
  if (cudaFree(pointer) != cudaSuccess) cudaGetLastError();
}

}    // namespace

std::int64_t pooled_bytes(int gpu) { return pools().bytes(gpu); }
void release_pooled(int gpu) { pools().release_free(gpu); }

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
