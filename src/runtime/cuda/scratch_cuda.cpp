// CUDA's side of scratch.cpp: LibTorch's hook for allocators of one's own. On every road from a tensor to memory LibTorch calls allocate
// and release below, with the current device of the thread; any thread may do so at any time.
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/cuda/CUDAPluggableAllocator.h>

#include <set>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "runtime/scratch.h"

namespace sheaf {
namespace {

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
    user_error("GPU {}: {} of memory are wanted at once, {} of {} are free ({}); a smaller micro-batch or a shorter sequence needs less",
               device, human_bytes(static_cast<double>(bytes)), human_bytes(static_cast<double>(free)),
               human_bytes(static_cast<double>(total)), cudaGetErrorString(error));
  }
  if (scope)
    scope->note(pointer, static_cast<std::int64_t>(bytes));
  else
    count_stray_allocation(DeviceKind::cuda);
  return pointer;
}

void release(void* pointer, std::size_t, int, cudaStream_t) {
  if (!pointer) return;
  if (ScratchScope* scope = ScratchScope::current(DeviceKind::cuda)) {
    if (scope->take_back(pointer)) return;
    scope->forget(pointer);
  }
  // Waits for the device, so that no kernel still uses the memory. It fails when the process ends, and for a pointer out of a slot whose
  // row is over, which the executor has reported: the error must not be taken for that of the next launch.
  if (cudaFree(pointer) != cudaSuccess) cudaGetLastError();
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
    const at::Tensor square =
        at::zeros({32, 32}, at::TensorOptions().dtype(dtype).device(at::kCUDA, static_cast<c10::DeviceIndex>(device_index)));
    at::mm(square, square);
    at::addmm(square.select(0, 0), square, square);
  }
}

}    // namespace sheaf
