#include "runtime/step_slots.h"

#include <ATen/ops/zeros.h>

#include <cstring>

#include "base/error.h"

namespace sheaf {
namespace {

// Slots hold fp32 or i32 in their first four bytes.
void encode(double value, DType dtype, void* slot) {
  const auto f = static_cast<float>(value);
  const auto i = static_cast<std::int32_t>(value);
  std::memcpy(slot, dtype == DType::i32 ? static_cast<const void*>(&i) : &f, 4);
}

}    // namespace

StepSlots::StepSlots(const Graph& graph, at::Tensor persistent, std::int64_t num_micro_batches) : persistent_(std::move(persistent)) {
  const auto add = [&](const std::string& name, auto& table, Value v) {
    table[name] = dtype_.size();
    dtype_.push_back(graph.type(v).dtype);
  };
  for (const Value v : graph.all(ValueKind::argument)) add(graph[v].name.substr(5), arguments_, v);
  for (const Value v : graph.all(ValueKind::state))
    if (graph[v].attrs.has("metric")) add(graph[v].name.substr(7), metrics_, v);
  host_ = host_bytes(static_cast<std::int64_t>(dtype_.size()) * kSlotBytes);
  micro_batches_ = host_bytes(num_micro_batches * kSlotBytes);
  for (std::int64_t i = 0; i < num_micro_batches; ++i)
    encode(static_cast<double>(i), DType::i32, static_cast<char*>(micro_batches_.data_ptr()) + i * kSlotBytes);
}

at::Tensor StepSlots::host_bytes(std::int64_t bytes) const {
  return at::zeros({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(persistent_.is_cuda()));
}
at::Tensor StepSlots::device(std::size_t first, std::size_t count) const {
  return persistent_.narrow(0, static_cast<std::int64_t>(first) * kSlotBytes, static_cast<std::int64_t>(count) * kSlotBytes);
}
at::Tensor StepSlots::host(std::size_t first, std::size_t count) const {
  return host_.narrow(0, static_cast<std::int64_t>(first) * kSlotBytes, static_cast<std::int64_t>(count) * kSlotBytes);
}

void StepSlots::set(std::string_view argument, double value) {
  if (const auto found = arguments_.find(argument); found != arguments_.end()) encode(value, dtype_[found->second], slot(found->second));
}

void StepSlots::give_arguments() {
  if (arguments_.empty()) return;
  set("micro_batch", 0);
  device(0, arguments_.size()).copy_(host(0, arguments_.size()), !metrics_.empty());    // without metrics nothing later waits for it
}

void StepSlots::give_micro_batch(std::int64_t index) {
  if (const auto found = arguments_.find("micro_batch"); found != arguments_.end())
    device(found->second, 1).copy_(micro_batches_.narrow(0, index * kSlotBytes, kSlotBytes), true);
}

void StepSlots::take_metrics() {
  if (!metrics_.empty()) host(arguments_.size(), metrics_.size()).copy_(device(arguments_.size(), metrics_.size()));
}

double StepSlots::metric(std::string_view name) const {
  const auto found = metrics_.find(name);
  SHEAF_CHECK(found != metrics_.end(), "no metric '{}'", name);
  const void* at = slot(found->second);
  const DType dtype = dtype_[found->second];
  if (dtype == DType::i64) {
    std::int64_t i;
    std::memcpy(&i, at, 8);
    return static_cast<double>(i);
  }
  SHEAF_CHECK(dtype == DType::fp32, "metric '{}' is {}", name, sheaf::name(dtype));
  float f;
  std::memcpy(&f, at, 4);
  return f;
}

}    // namespace sheaf
