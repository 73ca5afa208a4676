// Ops' own kernels that read values on the host, which no graph can hold: rows of last resort, so that plans know.
#include "ops/op_table.h"
#include "runtime/kernels/cuda/row_support.h"

namespace sheaf {

std::vector<KernelRow> cuda_host_rows() {
  const auto row = [](std::string_view op, auto takes, auto launch) {
    return KernelRow{.op = op, .device = DeviceKind::cuda, .name = "aten", .takes = takes, .launch = launch, .capture_safe = false};
  };
  std::vector<KernelRow> rows = {
      row(
          "attention", [](const Attrs&, const Types& in) { return in[3] != nullptr; },    // ends of documents
          [](const Args& a) { op(OpId::attention).kernel(a); }),
      row(
          "attention_grad", [](const Attrs&, const Types& in) { return in[6] != nullptr; },
          [](const Args& a) { op(OpId::attention_grad).kernel(a); }),
  };
  // Whose rows are whose experts'.
  constexpr auto any = [](const Attrs&, const Types&) { return true; };
  for (const OpId id : {OpId::grouped_einsum, OpId::add_expert_bias, OpId::sum_expert_rows, OpId::biased_gated, OpId::biased_gated_grad,
                        OpId::biased_weighted, OpId::biased_weighted_grad})
    rows.push_back(row(op(id).name, any, op(id).kernel));
  return rows;
}

}    // namespace sheaf
