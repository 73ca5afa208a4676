#include "runtime/dynamic_rows.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.h"
#include "ops/aten.h"
#include "ops/op_table.h"
#include "runtime/scratch.h"

namespace sheaf {

DynamicRows::DynamicRows(const Graph& graph, const std::vector<Type>& local, std::vector<at::Tensor>& views, at::Device device, bool poison)
    : graph_(graph), local_(local), views_(views), device_(device), poison_(poison) {
  for (const Segment s : kSegments) {
    std::map<Value, std::size_t> last;
    for (std::size_t n = 0; n < graph.nodes(s).size(); ++n)
      for (const auto* side : {&graph.nodes(s)[n].in, &graph.nodes(s)[n].out})
        for (const Value v : *side)
          if (v && graph.has_dynamic_rows(v)) last[v] = n;
    for (const auto& [v, n] : last) last_read_[static_cast<std::size_t>(s)][n].push_back(v);
  }
}

bool DynamicRows::touches(const Graph& graph, const Node& node) {
  const auto dynamic = [&](Value v) { return v && graph.has_dynamic_rows(v); };
  return std::any_of(node.in.begin(), node.in.end(), dynamic) || std::any_of(node.out.begin(), node.out.end(), dynamic);
}

void DynamicRows::add_exchange(const Node& node, Transport& transport, const std::string& what) {
  exchanges_.try_emplace(node.in.back(), graph_, node, transport, what);
}

std::vector<Group> DynamicRows::groups() const {
  std::vector<Group> out;
  for (const auto& [v, exchange] : exchanges_) out.push_back(exchange.group());
  return out;
}

at::Tensor DynamicRows::make(Value v, std::int64_t rows) {
  const Type& type = local_[static_cast<std::size_t>(v.id)];
  Shape shape = type.stored();
  shape[2] = rows;
  at::Tensor t = at::empty(shape, at::TensorOptions().dtype(scalar_type(type.dtype)).device(device_));
  if (poison_ && t.is_floating_point()) t.fill_(NAN);
  held_ += static_cast<std::int64_t>(t.nbytes());
  return views_[static_cast<std::size_t>(v.id)] = t;
}

// Of its outputs: as many as its operands have. What `route` makes has room for the most that there can be.
std::int64_t DynamicRows::rows_of(const Call& call) {
  for (std::size_t i = 0; i < call.in.size(); ++i)
    if (call.node->in[i] && graph_.type(call.node->in[i]).routed) return call.in[i].size(2);
  return local_[static_cast<std::size_t>(call.node->out[0].id)].stored()[2];
}

void DynamicRows::exchange(Call& call) {
  const Node& node = *call.node;
  RowExchange& rows = exchanges_.at(node.in.back());
  rows.learn(call.in.back());
  if (node.op != &op(OpId::exchange_rows)) rows.learn_tokens(call.in[1], call.in.back(), node.attrs.integer("k"));
  const bool to_experts = graph_.has_dynamic_rows(node.out[0]);
  const at::Tensor out = to_experts ? make(node.out[0], rows.rows_at_experts()) : call.out[0];
  measured([&] {
    if (node.op == &op(OpId::exchange_dispatch))
      rows.dispatch(call.in[0], out);
    else if (node.op == &op(OpId::exchange_combine))
      rows.combine(call.in[0], out);
    else
      to_experts ? rows.to_experts(call.in[0], out) : rows.to_tokens(call.in[0], out);
  });
}

void DynamicRows::compute(Call& call) {
  const std::int64_t rows = rows_of(call);
  for (std::size_t o = 0; o < call.out.size(); ++o)
    if (graph_.has_dynamic_rows(call.node->out[o])) call.out[o] = make(call.node->out[o], rows);
  if (call.collective) {
    SHEAF_CHECK(call.node->op == &op(OpId::to_partial), "{} of rows whose number is not known before", call.node->op->name);
    call.collective->run(call.in, call.out, nullptr);
  } else if (rows > 0 || !graph_.has_dynamic_rows(call.node->out[0])) {
    measured([&] { call.launch(); });
  }
  if (call.node->op != &op(OpId::route)) return;
  const std::int64_t used = call.out[0].ge(0).sum().item<std::int64_t>();
  for (const Value v : call.node->out) {
    at::Tensor& view = views_[static_cast<std::size_t>(v.id)];
    view = view.narrow(2, 0, used);
  }
}

void DynamicRows::run(Call& call, Segment segment, std::size_t n) {
  const PooledAllocations pooled;
  for (std::size_t i = 0; i < call.in.size(); ++i)
    if (call.node->in[i]) call.in[i] = views_[static_cast<std::size_t>(call.node->in[i].id)];
  exchanges_rows(*call.node->op) ? exchange(call) : compute(call);
  for (at::Tensor& t : call.in) t = at::Tensor();
  for (std::size_t o = 0; o < call.out.size(); ++o)
    if (graph_.has_dynamic_rows(call.node->out[o])) call.out[o] = at::Tensor();
  const auto& last = last_read_[static_cast<std::size_t>(segment)];
  if (const auto found = last.find(n); found != last.end())
    for (const Value v : found->second) {
      at::Tensor& view = views_[static_cast<std::size_t>(v.id)];
      held_ -= static_cast<std::int64_t>(view.storage().nbytes());
      view = at::Tensor();
    }
}

// Tensors that outlive the call are made outside.
void DynamicRows::measured(const std::function<void()>& work) {
  const ScratchScope scope(device_.is_cuda() ? DeviceKind::cuda : DeviceKind::cpu, nullptr, 0);
  work();
  peak_ = std::max({peak_, held_ + scope.peak(), device_.is_cuda() ? pooled_bytes(device_.index()) : 0});
}

}    // namespace sheaf
