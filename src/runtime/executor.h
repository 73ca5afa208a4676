#pragma once
// Runs the plan of a training step on one device: a flat list of kernel calls on views whose addresses never change.
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/transport.h"
#include "passes/plan_memory.h"
#include "runtime/call_timer.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

class Executor;
struct ExecutorOptions {
  DeviceKind device = DeviceKind::cpu;
  int device_index = 0;
  bool deterministic = true;
  bool poison = false;    // the arena starts as NaN: whatever reads what nothing wrote is seen
  // Another executor on the same device, idle while this one runs a step: states that it has too are read where they lie there (@w, or its
  // copy @w.c in the dtype wanted here), and its arena serves this one as well if it is large enough.
  const Executor* beside = nullptr;
  Transport* transport = nullptr;    // of this rank, where the graph has a mesh
  // Segments as CUDA graphs (runtime/segment_graphs.h). none: where that is possible; true: all of them, or UserError says why not.
  std::optional<bool> cuda_graphs = false;
};

class Executor {
 public:
  // Chooses kernels, measures their scratch by running each kind of call once on zeros, plans memory, allocates the two blocks.
  // The persistent block starts as zeros. On a mesh every rank has an executor of the same graph; constructing and running them takes all
  // ranks, each on a thread of its own.
  Executor(Graph graph, const ExecutorOptions& options);
  ~Executor();

  const Graph& graph() const;
  const MemoryPlan& memory() const;
  std::int64_t num_micro_batches() const;

  std::int64_t rank() const;
  // What this rank holds of a persistent value (input, state, carried), in its dtype, row-major: local_shape elements.
  void write(Value v, const void* from, std::int64_t bytes);
  void read(Value v, void* to, std::int64_t bytes) const;
  Shape local_shape(Value v) const;
  std::int64_t local_bytes(Value v) const;
  // A step argument for the next step.
  void set_argument(std::string_view name, double value);

  // One step: prologue, first, rest x (M - 1), epilogue. Returns when the metrics are on the host.
  void run_step();
  double metric(std::string_view name) const;    // @metric.NAME of the last step

  // Bytes on the device: what the plan says, and what the blocks that were allocated hold. Not those of the executor beside.
  std::int64_t planned_bytes() const;
  std::int64_t peak_bytes() const;

  // What the plan runs, as text: one line per call with kernel, place and scratch.
  std::string describe() const;

  // Which segments are captured as CUDA graphs and why others are not; "" where none are wanted or the device has none.
  std::string graphs() const;

  // The calls of the last step, if timing is on; then no segment is a graph. Measured on the device, each on its stream, without waiting in
  // between.
  void time_calls(bool on);
  const std::vector<CallTime>& call_times() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}    // namespace sheaf
