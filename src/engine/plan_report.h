#pragma once
// What a planned step holds and sends, for people and as JSON: placements, communication, bytes of a rank, what lives at the peak.
#include <string>
#include <vector>

#include "base/json.h"
#include "passes/plan_memory.h"

namespace sheaf {

// Bytes of a rank. Their sum is what a run allocates.
//   parameters   what ops read (@w.c, or @w where there is no copy) and the fp32 masters @w
//   gradients    the accumulators; with one micro-batch there are none, and it is what the backward leaves to the epilogue
//   optimizer    both moments
//   activations  everything else: inputs, arguments, constants, gaps of alignment, the rest of the arena with what kernels take for
//                themselves, and rows of experts that are cut over ranks, where all have equally many
struct MemoryUse {
  std::int64_t parameters = 0, gradients = 0, optimizer = 0, activations = 0;
  std::int64_t total() const { return parameters + gradients + optimizer + activations; }
};
MemoryUse memory_use(const Graph& graph, const MemoryPlan& plan);

// Collectives of one kind over the same axes in a step: how many, and what a rank sends in them, counted at the largest piece.
struct TrafficRow {
  std::string kind, axis;    // all_gather; dp, or sp.tp, or dp(a3): a part of an axis
  std::int64_t count = 0, bytes = 0;
};
// By bytes, most first. Nodes of `rest` count for each micro-batch but the first.
std::vector<TrafficRow> communication(const Graph& graph);

struct ParameterRow {
  std::string name;    // of the HuggingFace tensor; in a pattern * stands for a layer's number
  Shape shape;
  DType dtype = DType::fp32;                      // of what ops read
  std::string use, parameter, master, moments;    // placements as text, "" on one rank; moments "": frozen
  std::int64_t count = 1;
  std::int64_t bytes = 0;    // a rank's, of parameter, master and moments, of all `count`
  bool operator==(const ParameterRow&) const = default;
};
std::vector<ParameterRow> parameter_rows(const Graph& graph);
// Those that differ in nothing but a number in the name, as one.
std::vector<ParameterRow> by_pattern(const std::vector<ParameterRow>& rows);

// Values that live at the node at which most of the arena is in use, those alike as one, largest first.
struct PeakValue {
  std::string what, type;    // what made it; what a rank holds of it
  std::int64_t count = 0, bytes = 0;
};
struct Peak {
  std::string node;          // segment and op
  std::int64_t bytes = 0;    // in use there; the arena is larger where holes remain between values
  std::vector<PeakValue> values;
};
Peak arena_peak(const Graph& graph, const MemoryPlan& plan);

// A table of bytes, aligned; indented by two.
std::string memory_text(const MemoryUse& memory);
std::string communication_text(const std::vector<TrafficRow>& rows);
// Lines for the banner of a run on several ranks.
std::vector<std::string> plan_summary(const Graph& graph, const MemoryPlan& plan);

}    // namespace sheaf
