#include "engine/slow_calls.h"

#include <map>

#include "base/text.h"
#include "ops/op_table.h"
#include "runtime/scratch_plan.h"

namespace sheaf {

std::vector<std::string> slow_calls(const Graph& graph, std::int64_t rank, DeviceKind device, bool deterministic) {
  if (device == DeviceKind::cpu) return {};
  const std::vector<Type> local = local_types(graph, rank);
  std::map<std::string, int> counts;    // by what they are
  for (const Node& node : graph.nodes(Segment::first)) {
    const bool is_attention = node.op == &op(OpId::attention) || node.op == &op(OpId::attention_grad);
    if (!is_attention && (!has_operand(*node.op, "expert") || is_move(*node.op))) continue;
    const Types in = types_of(node.in, local);
    std::string operands;
    for (const Type* type : in)
      if (type) operands += " " + print(Type{type->dtype, type->shape, {}}, {});
    const KernelRow* row = kernel_of_call(node, in, device, deterministic);
    if (row ? !row->capture_safe : is_attention) ++counts[std::string(node.op->name) + " of" + operands];
  }
  std::vector<std::string> lines;
  for (const auto& [what, count] : counts)
    lines.push_back(
        fmt::format("WARNING: {} calls of {} have no kernel on this device: they are composed of smaller ones, far slower", count, what));
  return lines;
}

}    // namespace sheaf
