#include "runtime/scratch.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

constexpr std::int64_t kAlign[2] = {64, 256};    // cpu, cuda: what LibTorch's own allocators give, or what its kernels ask for
thread_local ScratchScope* t_current[2] = {nullptr, nullptr};
thread_local std::int64_t t_stray[2] = {0, 0};
thread_local int t_pooled = 0;
c10::DeleterFnPtr inner_deleter = nullptr;

void free_served(void* pointer) {
  // Served memory is freed by the row that asked for it, on its thread; a tensor that outlives its row would be a bug of the row.
  if (ScratchScope* scope = t_current[0]) scope->take_back(pointer);
}

void free_measured(void* pointer) {
  if (ScratchScope* scope = t_current[0]) scope->forget(pointer);
  inner_deleter(pointer);
}

// For raw_deallocate, which is told nothing but the pointer.
void free_any(void* pointer) {
  if (ScratchScope* scope = t_current[0]; scope && scope->take_back(pointer)) return;
  free_measured(pointer);
}

// The context of every DataPtr is its pointer: raw_allocate, which some products use, demands that.
class CpuAllocator final : public c10::Allocator {
 public:
  explicit CpuAllocator(c10::Allocator* inner) : inner_(inner) { inner_deleter = inner->raw_deleter(); }
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return inner_->allocate(0);    // no memory
    ScratchScope* scope = t_current[0];
    if (!scope) {
      count_stray_allocation(DeviceKind::cpu);
      return inner_->allocate(bytes);
    }
    if (void* pointer = scope->serve(static_cast<std::int64_t>(bytes))) return {pointer, pointer, free_served, c10::Device(c10::kCPU)};
    void* const pointer = inner_->raw_allocate(bytes);
    scope->note(pointer, static_cast<std::int64_t>(bytes));
    return {pointer, pointer, free_measured, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return free_any; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  c10::Allocator* inner_;
};

}    // namespace

std::int64_t SlotHeap::allocate(std::int64_t bytes) {
  bytes = std::max<std::int64_t>(align_, (bytes + align_ - 1) / align_ * align_);
  std::int64_t offset = 0;
  for (const auto& [begin, end] : used_) {
    if (offset + bytes <= begin) break;
    offset = end;
  }
  used_[offset] = offset + bytes;
  peak_ = std::max(peak_, offset + bytes);
  return offset;
}

void SlotHeap::free(std::int64_t offset) { used_.erase(offset); }

ScratchScope::ScratchScope(DeviceKind device, void* base, std::int64_t bytes)
    : device_(device),
      base_(static_cast<char*>(base)),
      bytes_(bytes),
      heap_(kAlign[static_cast<int>(device)]),
      outer_(t_current[static_cast<int>(device)]) {
  t_current[static_cast<int>(device)] = this;
}
ScratchScope::~ScratchScope() { t_current[static_cast<int>(device_)] = outer_; }

ScratchScope* ScratchScope::current(DeviceKind device) { return t_current[static_cast<int>(device)]; }

void* ScratchScope::serve(std::int64_t bytes) {
  if (!base_) return nullptr;
  const std::int64_t offset = heap_.allocate(bytes);
  SHEAF_CHECK(heap_.peak() <= bytes_, "a kernel needs {} of scratch, its slot has {}: more than it took when it was measured",
              human_bytes(static_cast<double>(heap_.peak())), human_bytes(static_cast<double>(bytes_)));
  return base_ + offset;
}

bool ScratchScope::take_back(void* pointer) {
  char* const p = static_cast<char*>(pointer);
  if (!base_ || p < base_ || p >= base_ + bytes_) return false;
  heap_.free(p - base_);
  return true;
}

void ScratchScope::forget(void* pointer) {
  const auto found = noted_.find(pointer);
  if (found == noted_.end()) return;
  heap_.free(found->second);
  noted_.erase(found);
}

void install_cuda_scratch_allocator();    // runtime/cuda; does nothing without CUDA

void install_scratch_allocators() {
  static std::once_flag once;
  std::call_once(once, [] {
    c10::SetCPUAllocator(new CpuAllocator(c10::GetCPUAllocator()), 1);    // for the life of the process: tensors hold pointers to it
    install_cuda_scratch_allocator();
  });
}

std::int64_t num_stray_allocations(DeviceKind device) { return t_stray[static_cast<int>(device)]; }
void count_stray_allocation(DeviceKind device) { ++t_stray[static_cast<int>(device)]; }

PooledAllocations::PooledAllocations() { ++t_pooled; }
PooledAllocations::~PooledAllocations() { --t_pooled; }
bool allocations_are_pooled() { return t_pooled > 0; }

#ifndef SHEAF_CUDA
std::int64_t pooled_bytes(int) { return 0; }
void release_pooled(int) {}
void install_cuda_scratch_allocator() {}
void take_lasting_workspaces(DeviceKind, int) {}
#endif

}    // namespace sheaf
