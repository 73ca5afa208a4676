#include "runtime/kernels/kernel_table.h"

#include "base/error.h"
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
  if (deterministic && op.atomic_adds && device != DeviceKind::cpu) {
    std::string types;
    for (const Type* type : in)
      if (type) types += " " + print(*type, Mesh{});
    user_error("{} has no deterministic kernel on {} for{}; \"run.deterministic\": false takes the one whose last bits vary", op.name,
               name(device), types);
  }
  return nullptr;
}

}    // namespace sheaf
