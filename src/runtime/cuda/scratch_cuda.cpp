// CUDA's side of scratch.cpp: LibTorch's hook for allocators of one's own. On every road from a tensor to memory LibTorch calls allocate and
// release below, with the current device of the thread; any thread may do so at any time.
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/cuda/CUDAPluggableAllocator.h>

#include <mutex>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "base/text.h"
#include "runtime/scratch.h"

namespace sheaf {
namespace {

// What cudaMalloc gave, by address; `serial` is that of the scope that measured it, 0: none did. Never destroyed: LibTorch gives memory
// back from destructors of its own statics.
struct Taken {
  std::int64_t offset = 0;
  std::uint64_t serial = 0;
};
struct Registry {
  std::mutex mutex;
  std::unordered_map<void*, Taken> taken;
};
Registry& registry() {
  static Registry& r = *new Registry;
  return r;
}

void* allocate(std::size_t bytes, int device, cudaStream_t) {
  if (bytes == 0) return nullptr;
  ScratchScope* scope = ScratchScope::current(DeviceKind::cuda);
  if (scope)
    if (void* pointer = scope->serve(static_cast<std::int64_t>(bytes))) return pointer;
  void* pointer = nullptr;
  if (const cudaError_t error = cudaMalloc(&pointer, bytes); error != cudaSuccess) {
    cudaGetLastError();    // an out of memory is not sticky; the next call must not report it again
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    user_error("GPU {}: {} of memory are wanted at once, {} of {} are free ({}); a smaller micro-batch or a shorter sequence needs less", device,
               human_bytes(static_cast<double>(bytes)), human_bytes(static_cast<double>(free)), human_bytes(static_cast<double>(total)),
               cudaGetErrorString(error));
  }
  Taken taken;
  if (scope) taken = {scope->note(static_cast<std::int64_t>(bytes)), scope->serial()};
  else count_stray_allocation(DeviceKind::cuda);
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  r.taken[pointer] = taken;
  return pointer;
}

void release(void* pointer, std::size_t, int, cudaStream_t) {
  if (!pointer) return;
  ScratchScope* scope = ScratchScope::current(DeviceKind::cuda);
  if (scope && scope->take_back(pointer)) return;
  Taken taken;
  {
    Registry& r = registry();
    const std::lock_guard lock(r.mutex);
    const auto found = r.taken.find(pointer);
    if (found == r.taken.end()) return;    // out of a slot whose row is over: the executor has reported that row
    taken = found->second;
    r.taken.erase(found);
  }
  if (scope && scope->serial() == taken.serial) scope->forget(taken.offset);
  cudaFree(pointer);    // waits for the device, so that no kernel still uses it; fails harmlessly when the process ends
}

}    // namespace

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
    const at::Tensor square = at::zeros({32, 32}, at::TensorOptions().dtype(dtype).device(at::kCUDA, static_cast<c10::DeviceIndex>(device_index)));
    at::mm(square, square);
    at::addmm(square.select(0, 0), square, square);
  }
}

}    // namespace sheaf
