#include "engine/weights.h"

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "checkpoint/convert.h"
#include "engine/held.h"

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

void write_master(Executor& executor, Value v, const FillBox& fill) {
  const Graph& graph = executor.graph();
  std::vector<float> data;
  std::vector<std::byte> low;
  for (const Value to : {v, graph.find(graph[v].name + ".c")}) {
    if (!to) continue;
    const Type& type = graph.type(to);
    data.resize(static_cast<std::size_t>(num_elements(executor.local_shape(to))));
    float* at = data.data();
    for (const Box& box : held_boxes(graph, to, executor.rank())) {
      fill(box, at);
      at += num_elements(box);
    }
    if (type.dtype == DType::fp32) {
      executor.write(to, data.data(), executor.local_bytes(to));
      continue;
    }
    low.resize(static_cast<std::size_t>(executor.local_bytes(to)));
    convert(DType::fp32, data.data(), type.dtype, low.data(), static_cast<std::int64_t>(data.size()));
    executor.write(to, low.data(), executor.local_bytes(to));
  }
}

void load_weights(Executor& executor, const HfFolder& folder, bool tied_head) {
  const Graph& graph = executor.graph();
  std::vector<ExpectedTensor> expected;
  for (const Value v : weights_of(graph)) expected.push_back({graph[v].name, file_shape(graph[v])});
  check_tensors(folder.weights(), expected, [&](std::string_view name) { return is_ignored(name, tied_head); });
  for (const Value v : weights_of(graph)) {
    const StoredTensor& stored = folder.weights().at(graph[v].name);
    if (!is_convertible(stored.dtype, DType::fp32))
      user_error("{}: tensor '{}' is {}; wanted bf16, fp16 or fp32", folder.path(), stored.name, name(stored.dtype));
    // Splitting dims moves no element: a box of the state is runs of the file's tensor.
    write_master(executor, v, [&](const Box& box, float* to) {
      for_each_run(graph.type(v).shape, box, [&](std::int64_t first, std::int64_t at, std::int64_t count) {
        convert(stored.dtype, stored.bytes.data() + first * size_bytes(stored.dtype), DType::fp32, to + at, count);
      });
    });
  }
}

void init_weights(Executor& executor, std::uint64_t seed) {
  const Graph& graph = executor.graph();
  for (const Value v : weights_of(graph)) {
    const ValueInfo& info = graph[v];
    const std::int64_t width = info.type.shape.empty() ? 1 : info.type.shape.back();
    const std::int64_t zero_row = info.attrs.has("zero_row") ? info.attrs.integer("zero_row") : -1;    // the embedding of the padding token
    write_master(executor, v, [&](const Box& box, float* to) {
      for_each_run(info.type.shape, box, [&](std::int64_t first, std::int64_t at, std::int64_t count) {
        const std::span<float> run(to + at, static_cast<std::size_t>(count));
        std::fill(run.begin(), run.end(), info.attrs.text("init") == "ones" ? 1.0f : 0.0f);
        if (info.attrs.text("init") == "normal")
          fill_normal(run, seed, hash_text(info.name), static_cast<std::uint64_t>(first), 0, info.attrs.number("std"));
        const std::int64_t begin = std::max(first, zero_row * width), end = std::min(first + count, (zero_row + 1) * width);
        if (zero_row >= 0 && begin < end) std::fill(to + at + begin - first, to + at + end - first, 0.0f);
      });
    });
  }
}

void save_weights(const Executor& executor, Transport* transport, const std::string& folder, Json config, const SaveOptions& options) {
  const Graph& graph = executor.graph();
  set_dtype(config, options.dtype);
  std::optional<HfWriter> writer;
  if (executor.rank() == 0) {
    std::vector<TensorToWrite> tensors;
    for (const Value v : weights_of(graph)) tensors.push_back({graph[v].name, options.dtype, file_shape(graph[v])});
    writer.emplace(folder, config, tensors, HfWriterOptions{.side_files_from = options.side_files_from});
  }
  for (const Value v : weights_of(graph)) {
    const std::vector<std::byte> data = gather_on_first(executor, v, transport);
    if (writer) writer->write(graph[v].name, DType::fp32, data.data());
  }
  if (writer) writer->finish();
}

}    // namespace sheaf
