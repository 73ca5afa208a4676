#pragma once
// The numbers of a step: arguments go to the device before it, metrics come back after it. They lie first in the persistent block
// (passes/plan_memory.h), kSlotBytes each.
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "passes/plan_memory.h"

namespace sheaf {

class StepSlots {
 public:
  StepSlots(const Graph& graph, at::Tensor persistent, std::int64_t num_micro_batches);

  void set(std::string_view argument, double value);    // for the next step; nothing if the graph has no such argument
  double metric(std::string_view name) const;           // of the last step

  // In the order of the calling thread's stream.
  void give_arguments();                        // all of them; the micro-batch is 0
  void give_micro_batch(std::int64_t index);    // nothing if the graph does not ask for it
  void take_metrics();                          // waits, where there are any

 private:
  at::Tensor host_bytes(std::int64_t bytes) const;    // zeros; page-locked for CUDA, so that copies need no wait
  at::Tensor device(std::size_t first, std::size_t count) const;
  at::Tensor host(std::size_t first, std::size_t count) const;
  char* slot(std::size_t index) const { return static_cast<char*>(host_.data_ptr()) + index * kSlotBytes; }

  at::Tensor persistent_, host_;
  at::Tensor micro_batches_;    // host: the argument of each, never changed while a copy may be under way
  std::map<std::string, std::size_t, std::less<>> arguments_, metrics_;
  std::vector<DType> dtype_;    // by slot
};

}    // namespace sheaf
