#pragma once
// What a kernel row allocates inside comes from its own slot of the arena. Many ATen kernels allocate temporaries; all go through c10's
// allocator, which this file replaces by one that knows the calling thread's slot.
#include <cstdint>
#include <map>

#include "runtime/kernels/kernel_table.h"

namespace sheaf {

// First fit over a range of addresses: the same sequence of calls gives the same offsets, so the peak measured once is the peak for ever.
class SlotHeap {
 public:
  explicit SlotHeap(std::int64_t align = 64) : align_(align) {}
  std::int64_t allocate(std::int64_t bytes);    // offset
  void free(std::int64_t offset);
  std::int64_t peak() const { return peak_; }
  bool empty() const { return used_.empty(); }

 private:
  std::int64_t align_;
  std::map<std::int64_t, std::int64_t> used_;    // offset -> end
  std::int64_t peak_ = 0;
};

// While it lives, the thread's allocations on `device` are served from [base, base + bytes). With base nullptr they are only measured.
// Going past the slot throws InternalError.
class ScratchScope {
 public:
  ScratchScope(DeviceKind device, void* base, std::int64_t bytes);
  ~ScratchScope();
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;
  std::int64_t peak() const { return heap_.peak(); }
  bool empty() const { return heap_.empty(); }    // all that was served came back

  // For the allocators.
  static ScratchScope* current(DeviceKind device);
  void* serve(std::int64_t bytes);                                                             // nullptr: only measured
  bool take_back(void* pointer);                                                               // false: not ours
  void note(void* pointer, std::int64_t bytes) { noted_[pointer] = heap_.allocate(bytes); }    // only measured: the memory is another's
  void forget(void* pointer);

 private:
  DeviceKind device_;
  char* base_;
  std::int64_t bytes_;
  SlotHeap heap_;
  std::map<void*, std::int64_t> noted_;    // offset of what is only measured
  ScratchScope* outer_;
};

// While it lives, what the thread allocates on a GPU and no slot serves comes from a pool of the current stream, where it returns when it
// is freed: rows of experts, whose number is known only when the router has decided. Freeing for good would wait for the device each time.
class PooledAllocations {
 public:
  PooledAllocations();
  ~PooledAllocations();
  PooledAllocations(const PooledAllocations&) = delete;
  PooledAllocations& operator=(const PooledAllocations&) = delete;
};
bool allocations_are_pooled();         // for the allocators
std::int64_t pooled_bytes(int gpu);    // of all pools on it, in use or not
void release_pooled(int gpu);          // gives the GPU what is not in use; waits for it

// Installs the allocators; called once, before tensors are made: LibTorch takes no other allocator for CUDA once that has been used.
void install_scratch_allocators();

// Has the libraries below LibTorch take now, outside of any slot, what they allocate once per thread, device and stream and keep: the
// workspaces of cuBLAS. Cheap when done before. Nothing to do on the CPU.
void take_lasting_workspaces(DeviceKind device, int device_index);

// Allocations through c10 on this thread that no slot served, ever: constant across steps after warm-up.
std::int64_t num_stray_allocations(DeviceKind device = DeviceKind::cpu);
void count_stray_allocation(DeviceKind device);    // for the allocators

}    // namespace sheaf
