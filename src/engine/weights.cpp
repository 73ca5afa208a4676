#include "engine/weights.h"

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "base/text.h"
#include "checkpoint/convert.h"
#include "checkpoint/weight_reader.h"
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

std::string model_type(const Json& config) { return config.at("model_type").get<std::string>(); }

}    // namespace

std::vector<NamedShape> weight_shapes(const Graph& graph) {
  std::vector<NamedShape> out;
  for (const Value v : weights_of(graph)) out.push_back({graph[v].name, file_shape(graph[v])});
  return out;
}

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
    if (logical_type(graph, to).dtype == DType::fp32) {
      write_logical(executor, to, data.data());
      if (type.dtype != DType::fp32) return;    // its copy is written
      continue;
    }
    low.resize(static_cast<std::size_t>(executor.local_bytes(to)));
    convert(DType::fp32, data.data(), type.dtype, low.data(), static_cast<std::int64_t>(data.size()));
    executor.write(to, low.data(), executor.local_bytes(to));
  }
}

Experts load_weights(Executor& executor, const HfFolder& folder, bool tied_head) {
  const Graph& graph = executor.graph();
  WeightReader reader(folder.weights(), model_type(folder.config()), weight_shapes(graph),
                      [&](std::string_view name) { return is_left_out(name, folder.config(), tied_head); });
  const Values weights = weights_of(graph);
  for (std::size_t i = 0; i < weights.size(); ++i)
    // Splitting dims moves no element: a box of the state is runs of the weight.
    write_master(executor, weights[i], [&](const Box& box, float* to) {
      for_each_run(graph.type(weights[i]).shape, box,
                   [&](std::int64_t first, std::int64_t at, std::int64_t count) { reader.read(i, first, count, to + at); });
    });
  return reader.experts();
}

std::string left_out(const HfFolder& folder) {
  const auto tensors = folder.weights().tensors();
  const auto further = std::count_if(tensors.begin(), tensors.end(),
                                     [&](const StoredTensor& tensor) { return predicts_further(tensor.name, folder.config()); });
  return further == 0 ? "" : fmt::format("{} tensors predict tokens beyond the next: left out, also of what is written", further);
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
  const Values weights = weights_of(executor.graph());
  const std::vector<WeightPart> parts = parts_to_write(model_type(config), options.experts, weight_shapes(executor.graph()), options.dtype);
  set_dtype(config, options.dtype);
  std::optional<HfWriter> writer;
  if (executor.rank() == 0) writer.emplace(folder, config, tensors_of(parts), HfWriterOptions{.side_files_from = options.side_files_from});
  auto part = parts.begin();
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::vector<std::byte> data = gather_on_first(executor, weights[i], transport);
    for (; part != parts.end() && part->weight == i; ++part)
      if (writer) writer->write(part->tensor.name, DType::fp32, data.data() + part->first * size_bytes(DType::fp32));
  }
  if (writer) writer->finish();
}

}    // namespace sheaf
