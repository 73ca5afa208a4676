#pragma once
// Which kernel a call takes and what it allocates inside. The executor finds out by running each kind of call once on zeros; a plan without
// the run's device does the same on the CPU where calls are small, and extrapolates from smaller ones where they are not.
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

using ScratchBytes = std::array<std::vector<std::int64_t>, kSegments.size()>;    // by node, as Graph::segments

// By Value::id, what a rank holds.
std::vector<Type> local_types(const Graph& graph, std::int64_t rank);

// Of the operands or outputs of a call; local: by Value::id.
Types types_of(const Values& values, const std::vector<Type>& local);

// A tensor of a call, as the rank has it: bytes from a token of it to the next as Place::pitch, 0: without gaps. Type nullptr: absent.
struct CallTensor {
  const Type* type = nullptr;
  std::int64_t pitch = 0;
};
using CallTensors = std::vector<CallTensor>;
// Of its dims as they are stored, in elements.
std::vector<std::int64_t> strides_of(const CallTensor& tensor);
// local, pitches: by Value::id; no pitches: nothing has gaps.
CallTensors call_tensors(const Values& values, const std::vector<Type>& local, const std::vector<std::int64_t>& pitches = {});

// Two calls with equal signatures take equal scratch.
std::string call_signature(const Node& node, const CallTensors& in, const CallTensors& out);
// The row that a call takes; nullptr: the op's own kernel. Throws InternalError if there is neither.
const KernelRow* kernel_of_call(const Node& node, const Types& in, DeviceKind device, bool deterministic);
// Bytes that one call takes for itself on such tensors.
std::int64_t scratch_of_call(const Node& node, const KernelRow* row, const CallTensors& in, const CallTensors& out, DeviceKind device,
                             int device_index);

using KnownScratch = std::map<std::string, std::int64_t>;    // by call_signature

// By node, as Graph::segments.
struct ChosenKernels {
  std::array<std::vector<const KernelRow*>, kSegments.size()> rows;    // nullptr: the op's own kernel, or a move, or a pack
  ColumnMasks columns;
};
ChosenKernels choose_kernels(const Graph& graph, const std::vector<Type>& local, DeviceKind device, bool deterministic);

// What the calls of a rank take on a device of this machine, by running each kind of call once on zeros that lie as its tensors will in the
// run: some kernels take more where there are gaps. Moves and rows whose number is not known before: 0.
ScratchBytes measure_scratch(const Graph& graph, const std::vector<Type>& local, const ChosenKernels& kernels, DeviceKind device,
                             int device_index, KnownScratch& known);

struct ScratchPlan {
  ScratchBytes bytes;
  ColumnMasks columns;
  bool measured = true;    // false: calls of the run are too large to be made here, or the run's device is another one
};

struct ScratchPlanOptions {
  std::int64_t rank = 0;
  DeviceKind device = DeviceKind::cpu;    // of the run
  int gpu = -1;                           // of this machine, for plans that run on such; -1: what is known of GPUs (gpu_scratch.h), and
                                          // the CPU's kernels, stand for its own
  bool deterministic = true;
  bool extrapolate = false;         // even where calls are small enough to be made as they are (tests)
  KnownScratch* known = nullptr;    // of another rank of the same run, read and added to
};

// What the calls of one rank take. Calls are made as they are if all kinds of them together stay below a few seconds of one core, or on a
// GPU; a larger kind is made at smaller extents, each of its factors halved in turn to see how its scratch follows, and scaled. What
// collectives stage is arithmetic. Must run on a thread with as many threads of its own as a rank of the run has (enter_rank_thread).
ScratchPlan plan_scratch(const Graph& graph, const ScratchPlanOptions& options);

}    // namespace sheaf
