#include "engine/weights.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "checkpoint/convert.h"

namespace sheaf {
namespace {

// Those of a frozen model included.
Values weights_of(const Graph& graph) {
  Values out;
  for (const Value v : graph.all(ValueKind::state))
    if (graph[v].attrs.has("trainable")) out.push_back(v);
  return out;
}

}    // namespace

namespace {

// Tensors of a HF folder that carry nothing: buffers that old versions saved, the head of a tied model.
bool is_ignored(std::string_view name, bool tied_head) {
  return name.ends_with("rotary_emb.inv_freq") || (tied_head && name == "lm_head.weight");
}

}    // namespace

void write_master(Executor& executor, Value v, std::span<const float> data) {
  const Graph& graph = executor.graph();
  const auto write = [&](Value to) {
    const Type& type = graph.type(to);
    if (type.dtype == DType::fp32) return executor.write(to, data.data(), type.bytes());
    std::vector<std::byte> low(static_cast<std::size_t>(type.bytes()));
    convert(DType::fp32, data.data(), type.dtype, low.data(), static_cast<std::int64_t>(data.size()));
    executor.write(to, low.data(), type.bytes());
  };
  write(v);
  if (const Value derived = graph.find(graph[v].name + ".c")) write(derived);
}

void load_weights(Executor& executor, const HfFolder& folder, bool tied_head) {
  const Graph& graph = executor.graph();
  std::vector<ExpectedTensor> expected;
  for (const Value v : weights_of(graph)) expected.push_back({graph[v].name, file_shape(graph[v])});
  check_tensors(folder.weights(), expected, [&](std::string_view name) { return is_ignored(name, tied_head); });
  std::vector<float> data;
  for (const Value v : weights_of(graph)) {
    const StoredTensor& stored = folder.weights().at(graph[v].name);
    if (!is_convertible(stored.dtype, DType::fp32))
      user_error("{}: tensor '{}' is {}; wanted bf16, fp16 or fp32", folder.path(), stored.name, name(stored.dtype));
    data.resize(static_cast<std::size_t>(stored.count()));
    convert(stored.dtype, stored.bytes.data(), DType::fp32, data.data(), stored.count());
    write_master(executor, v, data);
  }
}

void init_weights(Executor& executor, std::uint64_t seed) {
  const Graph& graph = executor.graph();
  std::vector<float> data;
  for (const Value v : weights_of(graph)) {
    const ValueInfo& info = graph[v];
    data.assign(static_cast<std::size_t>(num_elements(info.type.shape)), info.attrs.text("init") == "ones" ? 1.0f : 0.0f);
    if (info.attrs.text("init") == "normal") fill_normal(data, seed, hash_text(info.name), 0, 0, info.attrs.number("std"));
    if (info.attrs.has("zero_row")) {    // the embedding of the padding token
      const std::int64_t width = info.type.shape.back(), row = info.attrs.integer("zero_row");
      std::fill_n(data.begin() + row * width, width, 0.0f);
    }
    write_master(executor, v, data);
  }
}

void save_weights(const Executor& executor, const std::string& folder, Json config, const SaveOptions& options) {
  const Graph& graph = executor.graph();
  set_dtype(config, options.dtype);
  std::vector<TensorToWrite> tensors;
  for (const Value v : weights_of(graph)) tensors.push_back({graph[v].name, options.dtype, file_shape(graph[v])});
  HfWriter writer(folder, config, tensors, {.side_files_from = options.side_files_from});
  std::vector<float> data;
  for (const Value v : weights_of(graph)) {
    data.resize(static_cast<std::size_t>(num_elements(graph.type(v).shape)));
    executor.read(v, data.data(), graph.type(v).bytes());
    writer.write(graph[v].name, DType::fp32, data.data());
  }
  writer.finish();
}

}    // namespace sheaf
