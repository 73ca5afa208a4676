#pragma once
// Which kernel a call takes and what it allocates inside. The executor finds out by running each kind of call once on zeros; a plan without
// a device does the same where calls are small, and extrapolates from smaller ones where they are not.
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

// Two calls with equal signatures take equal scratch. in: types of the rank's pieces, nullptr: absent.
std::string call_signature(const Node& node, const Types& in);
// The row that a call takes; nullptr: the op's own kernel. Throws InternalError if there is neither.
const KernelRow* kernel_of_call(const Node& node, const Types& in, DeviceKind device, bool deterministic);
// Bytes that one call takes for itself on pieces of these types.
std::int64_t measured_scratch(const Node& node, const KernelRow* row, const Types& in, const Types& out, DeviceKind device,
                              int device_index);

struct ScratchPlan {
  ScratchBytes bytes;
  bool measured = true;    // false: calls of the run are too large to be made here, or the run's device is another one
};

using KnownScratch = std::map<std::string, std::int64_t>;    // by call_signature

struct ScratchPlanOptions {
  std::int64_t rank = 0;
  DeviceKind device = DeviceKind::cpu;    // of the run. Only the CPU's kernels are ever called: for cuda they stand for its own
  bool deterministic = true;
  bool extrapolate = false;         // even where calls are small enough to be made as they are (tests)
  KnownScratch* known = nullptr;    // of another rank of the same run, read and added to
};

// What the calls of one rank take. Calls are made as they are if all kinds of them together stay below a few seconds of one core; a larger
// kind is made at smaller extents, each of its factors halved in turn to see how its scratch follows, and scaled. What collectives stage is
// arithmetic. Must run on a thread with as many threads of its own as a rank of the run has (enter_rank_thread).
ScratchPlan plan_scratch(const Graph& graph, const ScratchPlanOptions& options);

}    // namespace sheaf
