// Ops' own kernels that read values on the host, which no graph can hold: rows of last resort, so that plans know.
#include "ops/op_table.h"
#include "runtime/kernels/cuda/row_support.h"

namespace sheaf {

std::vector<KernelRow> cuda_host_rows() {
  const auto row = [](std::string_view op, auto takes, auto launch) {
    return KernelRow{.op = op, .device = DeviceKind::cuda, .name = "aten", .takes = takes, .launch = launch, .capture_safe = false};
  };
  return {
      row(
          "attention", [](const Attrs&, const Types& in) { return in[3] != nullptr; },    // ends of documents
          [](const Args& a) { op(OpId::attention).kernel(a); }),
      row(
          "attention_grad", [](const Attrs&, const Types& in) { return in[6] != nullptr; },
          [](const Args& a) { op(OpId::attention_grad).kernel(a); }),
      row(
          "grouped_einsum", [](const Attrs&, const Types&) { return true; }, [](const Args& a) { op(OpId::grouped_einsum).kernel(a); }),
  };
}

}    // namespace sheaf
