#include "runtime/dynamic_rows.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.h"
#include "ops/aten.h"
#include "ops/op_table.h"
#include "runtime/scratch.h"

namespace sheaf {

DynamicRows::DynamicRows(const Graph& graph, const std::vector<Type>& local, std::vector<at::Tensor>& views, at::Device device, bool poison,
                         Transport* transport, SideStream* side)
    : graph_(graph), local_(local), views_(views), device_(device), poison_(poison), transport_(transport), side_(side) {
  for (const Segment s : kSegments) {
    std::map<Value, std::size_t> last;
    for (std::size_t n = 0; n < graph.nodes(s).size(); ++n)
      for (const auto* values : {&graph.nodes(s)[n].in, &graph.nodes(s)[n].out})
        for (const Value v : *values)
          if (v && graph.has_dynamic_rows(v)) last[v] = n;
    for (const auto& [v, n] : last) last_read_[static_cast<std::size_t>(s)][n].push_back(v);
  }
}

// What the next run takes has other sizes.
DynamicRows::~DynamicRows() {
  if (device_.is_cuda()) release_pooled(device_.index());
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

void DynamicRows::begin() {
  for (auto& [v, exchange] : exchanges_) exchange.forget();
  announced_.clear(), with_unused_rows_.clear();
}

bool DynamicRows::has_unknown_rows(const Node& node) const { return node.op == &op(OpId::route) && graph_.has_dynamic_rows(node.out[1]); }

bool DynamicRows::decides(const Node& node) const {
  return has_unknown_rows(node) || std::any_of(node.out.begin(), node.out.end(), [&](Value v) { return exchanges_.contains(v); });
}

void DynamicRows::announce(const Node& node, Segment segment) {
  const auto behind = [&](Value expert, const std::function<void(const at::Tensor&)>& count) {
    const std::size_t id = graph_.nodes(segment).size() + static_cast<std::size_t>(expert.id);    // no collective's
    const auto work = [&] { count(views_[static_cast<std::size_t>(expert.id)]); };
    side_ ? side_->run(id, work) : work();
    announced_[expert] = id;
  };
  for (const Value v : node.out)
    if (const auto found = exchanges_.find(v); found != exchanges_.end())
      behind(v, [&](const at::Tensor& expert) { found->second.announce(expert); });
  if (!has_unknown_rows(node)) return;
  for (const Value v : node.out) with_unused_rows_[v] = &node;
  behind(node.out[1], [&](const at::Tensor& expert) {
    RowCounts& used = used_[node.out[1]];
    if (!used.defined()) used = RowCounts({static_cast<std::int32_t>(graph_.type(node.out[1]).shape[0] - 1)}, 0, device_);
    used.count(expert);
    used.to_host();
  });
}

// The host goes on when they are there, and so does the stream.
void DynamicRows::wait_for_counts(Value expert) {
  const auto found = announced_.find(expert);
  if (found == announced_.end()) return;
  if (side_) {
    transport_->wait_until([&] { return side_->done(found->second); });
    side_->wait_for(found->second);
  }
  announced_.erase(found);
}

void DynamicRows::take_used_rows(const Node& route) {
  wait_for_counts(route.out[1]);
  const std::int64_t used = *used_.at(route.out[1]).on_host();
  for (const Value v : route.out) {
    at::Tensor& view = views_[static_cast<std::size_t>(v.id)];
    if (view.defined()) view = view.narrow(2, 0, used);
    with_unused_rows_.erase(v);
  }
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
  wait_for_counts(node.in.back());
  rows.learn();
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
}

void DynamicRows::run(Call& call, Segment segment, std::size_t n) {
  const PooledAllocations pooled;
  for (const Value v : call.node->in)
    if (const auto found = with_unused_rows_.find(v); found != with_unused_rows_.end()) take_used_rows(*found->second);
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
