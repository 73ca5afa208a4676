#include "runtime/kernels/kernel_table.h"

#include "runtime/kernels/rows.h"

namespace sheaf {

std::string_view name(DeviceKind kind) { return kind == DeviceKind::cpu ? "cpu" : "cuda"; }

const std::vector<KernelRow>& kernel_table() {
  static const std::vector<KernelRow> rows = [] {
    std::vector<KernelRow> all = cpu_rows();
    for (const KernelRow& row : cuda_rows()) all.push_back(row);
    return all;
  }();
  return rows;
}

const KernelRow* select_kernel(const OpDef& op, DeviceKind device, bool deterministic, const Attrs& attrs, const Types& in) {
  for (const KernelRow& row : kernel_table())
    if (row.op == op.name && row.device == device && (row.deterministic || !deterministic) && row.takes(attrs, in)) return &row;
  return nullptr;
}

}    // namespace sheaf
