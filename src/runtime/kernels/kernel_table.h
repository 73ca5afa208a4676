#pragma once
// Device-specific and fused kernels are rows; an op's own kernel (portable, by ATen) is the row of last resort, and the oracle of the
// others.
#include <string_view>
#include <vector>

#include "ir/graph.h"
#include "passes/columns.h"

namespace sheaf {

enum class DeviceKind { cpu, cuda };
std::string_view name(DeviceKind kind);

struct KernelRow {
  std::string_view op;
  DeviceKind device;
  std::string_view name;                           // for plans and profiles
  bool (*takes)(const Attrs&, const Types& in);    // dtypes, shapes and options that it can do
  void (*launch)(const Args&);                     // on the current device and stream of the thread
  bool deterministic = true;                       // same inputs, same bits
  bool capture_safe = true;                        // no host read, no allocation outside the row's scratch
  ColumnMask columns = {};                         // which operands and outputs may have gaps behind every token
  // Called before the first launch of a kind of call, on tensors that nobody reads: tries ways to do it and remembers the best.
  void (*tune)(const Args&) = nullptr;
};

// In order of preference.
const std::vector<KernelRow>& kernel_table();

// The first row that takes the call; nullptr: the op's own kernel. Throws UserError if `deterministic` is asked for and nothing on the
// device gives it.
const KernelRow* select_kernel(const OpDef& op, DeviceKind device, bool deterministic, const Attrs& attrs, const Types& in);

}    // namespace sheaf
