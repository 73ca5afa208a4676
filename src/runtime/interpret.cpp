#include "runtime/interpret.h"

#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include "base/error.h"
#include "ops/aten.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

Interpreter::Interpreter(const Graph& graph, Numbers numbers) : graph_(graph), numbers_(numbers) {
  for (const Value v : graph.all(ValueKind::constant)) {
    const ValueInfo& info = graph[v];
    at::Tensor t = at::empty(info.type.shape, at::kDouble);
    std::copy(info.data.begin(), info.data.end(), t.data_ptr<double>());
    tensors_[v.id] = t.to(numbers == Numbers::integer ? at::kLong : scalar_type(info.type.dtype));
  }
}
Interpreter::~Interpreter() = default;

void Interpreter::give(Value v, const at::Tensor& tensor) { tensors_[v.id] = tensor; }

const at::Tensor& Interpreter::operator[](Value v) const {
  const auto found = tensors_.find(v.id);
  SHEAF_CHECK(found != tensors_.end(), "{} has no tensor", name_of(graph_, v));
  return found->second;
}

void Interpreter::run(Segment segment) {
  for (const Node& node : graph_.nodes(segment)) {
    std::vector<at::Tensor> in, out;
    for (const Value v : node.in) in.push_back(v ? (*this)[v] : at::Tensor());
    for (const Value v : node.out) {
      const Type& type = graph_.type(v);
      const bool rows = numbers_ == Numbers::real || numbers_ == Numbers::planned;
      out.push_back(at::empty(rows ? type.stored() : type.shape, numbers_ == Numbers::integer ? at::kLong : scalar_type(type.dtype)));
    }
    SHEAF_CHECK(node.op->kernel || numbers_ == Numbers::integer, "{} has no kernel to interpret", node.op->name);
    const Types types = graph_.types(node.in);
    const Rule rule = rule_for(*node.op, node.attrs, types);
    const auto [owner_begin, owner_end] = owned_piece(rule, types, graph_.types(node.out), Mesh{}, 0);
    const Args args{in, out, node.attrs, owner_begin, owner_end};
    const KernelRow* row = numbers_ == Numbers::planned ? select_kernel(*node.op, DeviceKind::cpu, true, node.attrs, types) : nullptr;
    if (numbers_ == Numbers::integer)
      integer_kernel(*node.op, rule, args);
    else if (numbers_ == Numbers::whole && node.op->meaning)
      node.op->meaning(args);
    else
      row ? row->launch(args) : node.op->kernel(args);
    for (std::size_t i = 0; i < out.size(); ++i) tensors_[node.out[i].id] = out[i];
  }
}

}    // namespace sheaf
