#include "engine/saver.h"

#include <algorithm>
#include <atomic>
#include <ctime>
#include <filesystem>
#include <iterator>
#include <set>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/convert.h"
#include "checkpoint/export.h"
#include "checkpoint/safetensors.h"
#include "comm/host_ops.h"
#include "engine/held.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

// The states that a checkpoint holds: weights and moments. Derived ones (@w.c) follow from them, metrics are of the step.
struct Stored {
  Value v;
  std::string name, kind;
};
std::vector<Stored> stored_states(const Graph& graph) {
  std::vector<Stored> out;
  for (const Value v : graph.all(ValueKind::state)) {
    const ValueInfo& info = graph[v];
    if (info.attrs.has("trainable"))
      out.push_back({v, info.name, "parameter"});
    else if (info.attrs.has("of") && info.name.ends_with(".m"))
      out.push_back({v, info.attrs.text("of"), "adam_m"});
    else if (info.attrs.has("of") && info.name.ends_with(".v"))
      out.push_back({v, info.attrs.text("of"), "adam_v"});
  }
  return out;
}

std::string now() {    // UTC
  const std::time_t seconds = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[32];
  return {text, std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc)};
}

// A kill in the middle must not leave something that looks like a checkpoint.
void remove_whole(const std::string& folder) {
  const std::string doomed = folder + ".tmp-old";
  fs::rename(folder, doomed);
  fs::remove_all(doomed);
}

}    // namespace

struct Saver::Impl {
  Rank rank;
  std::string folder;
  std::int64_t keep;
  Json identity;
  ModelRecord model;
  std::vector<MappedFile> side_files;    // open from the start: what became of them since then does not matter
  std::vector<std::byte> snapshot;

  // The write in hand.
  bool writing = false;
  std::int64_t step = 0;
  Json meta;
  std::optional<CheckpointWriter> writer;    // rank 0
  std::thread thread;
  std::string part;
  std::atomic<bool> part_written = false;
  std::int64_t last_complete = 0;

  explicit Impl(const Rank& r) : rank(r) {}

  std::string said_by_first(const std::string& text, const char* what) const {
    return rank.transport ? broadcast_text(*rank.host(), text, 0, what) : text;
  }

  // All ranks. Puts the parts together.
  std::string commit() {
    thread.join();
    writing = false;
    const auto parts = rank.transport ? all_gather_text(*rank.host(), part, "the parts of a checkpoint") : std::vector<std::string>{part};
    std::string error;
    if (rank.is_first()) {
      try {
        writer->commit(meta, parts, side_files);
        if (keep > 0) {
          auto found = list_checkpoints(folder);
          for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < found.size(); ++i) remove_whole(found[i].folder);
        }
      } catch (const std::exception& failure) {
        error = failure.what();
      }
      writer.reset();
    }
    error = said_by_first(error, "the end of a checkpoint");
    if (error.empty()) last_complete = step;
    return error;
  }

  // All ranks. Where the files go, or what went wrong.
  std::string begin(std::string& temporary) {
    std::string error;
    if (rank.is_first()) {
      try {
        writer.emplace(folder + "/" + checkpoint_name(step));
        temporary = writer->temporary();
      } catch (const std::exception& failure) {
        error = failure.what();
      }
    }
    error = said_by_first(error, "the start of a checkpoint");
    if (error.empty()) temporary = said_by_first(temporary, "the folder of a checkpoint");
    return error;
  }
};

Saver::Saver(const Rank& rank, std::string folder, std::int64_t keep, Json identity, Json config, const SaveOptions& model)
    : impl_(std::make_unique<Impl>(rank)) {
  impl_->folder = std::move(folder);
  impl_->keep = keep;
  impl_->identity = std::move(identity);
  impl_->model = {.config = std::move(config), .dtype = model.dtype, .experts = model.experts, .shapes = {}};
  if (!model.side_files_from.empty())
    for (const std::string& path : side_files(model.side_files_from)) impl_->side_files.emplace_back(path);
}
Saver::~Saver() {
  if (impl_->thread.joinable()) impl_->thread.join();
}
std::string Saver::finish() { return impl_->writing ? impl_->commit() : ""; }
std::int64_t Saver::last_complete() const { return impl_->last_complete; }

std::string Saver::poll() {
  if (!impl_->writing || !all_of_ranks(impl_->rank, impl_->part_written, "a checkpoint")) return "";
  return impl_->commit();
}

std::string Saver::save(const Executor& executor, const Progress& progress) {
  Impl& m = *impl_;
  std::string error = finish();
  m.step = progress.step;
  std::string temporary;
  if (const std::string failed = m.begin(temporary); !failed.empty()) return failed;
  const Graph& graph = executor.graph();
  const std::vector<Stored> states = stored_states(graph);
  std::int64_t bytes = 0;
  m.model.shapes = weight_shapes(graph);
  for (const Stored& state : states) {
    if (is_first_holder(graph, state.v, executor.rank())) bytes += logical_bytes(executor, state.v);
  }
  m.snapshot.resize(static_cast<std::size_t>(bytes));
  std::vector<ChunkToWrite> chunks;
  std::byte* at = m.snapshot.data();
  for (const Stored& state : states) {
    if (!is_first_holder(graph, state.v, executor.rank())) continue;
    const Type type = logical_type(graph, state.v);
    read_logical(executor, state.v, at);
    for (const Box& box : held_boxes(graph, state.v, executor.rank())) {
      chunks.push_back({state.name, state.kind, type.dtype, type.shape, box, at});
      at += num_elements(box) * size_bytes(type.dtype);
    }
  }
  m.meta = {};
  m.meta["step"] = progress.step;
  m.meta["committed"] = progress.committed;
  m.meta["written"] = now();
  m.meta["identity"] = m.identity;
  m.meta["model"] = to_json(m.model);
  m.writing = true;
  m.part_written = false;
  m.thread = std::thread([&m, temporary, chunks = std::move(chunks), rank = executor.rank()] {
    m.part = write_checkpoint_part(temporary, rank, chunks);
    m.part_written = true;
  });
  return error;
}

// Keys of config.json that change no number of a training step.
static bool changes_nothing(const std::string& key) {
  constexpr const char* kKeys[] = {"dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures", "use_cache"};
  return std::find(std::begin(kKeys), std::end(kKeys), key) != std::end(kKeys);
}

// The same weights in another model would train on without a word: another rope_theta has no tensor that could be missing.
static void check_same_config(const Checkpoint& checkpoint, const Json& config) {
  const auto model = checkpoint.meta().find("model");
  if (model == checkpoint.meta().end()) return;    // written before checkpoints said so
  const Json then = model->value("config", Json::object());
  const auto shown = [](const Json& object, const std::string& key) { return object.contains(key) ? object[key].dump() : "(none)"; };
  for (const Json* side : {&then, &config})
    for (const auto& [key, value] : side->items())
      if (!changes_nothing(key) && (!then.contains(key) || !config.contains(key) || then[key] != config[key]))
        user_error("{}: is a checkpoint of another model: its config.json has {} {}, this run's has {}", checkpoint.folder(), key,
                   shown(then, key), shown(config, key));
}

std::optional<Progress> restore(const Rank& rank, Executor& executor, const std::string& folder, const Json& identity, const Json& config) {
  if (rank.is_first()) remove_unfinished_checkpoints(folder);
  if (rank.transport) barrier(*rank.host(), "looking for a checkpoint");
  const auto found = list_checkpoints(folder);
  if (found.empty()) return std::nullopt;
  const Checkpoint checkpoint(found.back().folder);
  const Json& meta = checkpoint.meta();
  for (const auto& [key, value] : identity.items())
    if (!meta.contains("identity") || !meta["identity"].contains(key) || meta["identity"][key] != value)
      user_error("{}: was written by a run with {} {}, this run has {}; resume with the same, or start a run in a fresh run.output",
                 checkpoint.folder(), key,
                 meta.contains("identity") && meta["identity"].contains(key) ? meta["identity"][key].dump() : "(none)", value.dump());
  check_same_config(checkpoint, config);
  const Graph& graph = executor.graph();
  std::set<std::pair<std::string, std::string>> states;    // of this model: name, kind
  for (const Stored& state : stored_states(graph)) states.emplace(state.name, state.kind);
  for (const Checkpoint::Tensor& tensor : checkpoint.tensors())
    if (!states.contains({tensor.name, tensor.kind}))
      user_error("{}: has {} of {}, which this model has not: it is a checkpoint of another model", checkpoint.folder(), tensor.kind,
                 quote(tensor.name));
  std::vector<std::byte> data, stored;
  for (const Stored& state : stored_states(graph)) {
    const Type type = logical_type(graph, state.v);
    const Checkpoint::Tensor* tensor = checkpoint.find(state.name, state.kind);
    if (!tensor) user_error("{}: has no {} of {}: it is a checkpoint of another model", checkpoint.folder(), state.kind, quote(state.name));
    // Weights are numbers of fp32 in every run; moments may be stored in bf16 (bf16.bf16_optimizer_states).
    const bool converts = state.kind != "parameter" && is_convertible(tensor->dtype, type.dtype);
    if (tensor->shape != type.shape || (tensor->dtype != type.dtype && !converts))
      user_error("{}: {} of {} is {} {}, this model has {} {}", checkpoint.folder(), state.kind, quote(state.name), name(tensor->dtype),
                 shape_text(tensor->shape), name(type.dtype), shape_text(type.shape));
    if (state.kind == "parameter") {
      write_master(executor, state.v, [&](const Box& box, float* to) { checkpoint.read(*tensor, box, to); });
      continue;
    }
    data.resize(static_cast<std::size_t>(executor.local_bytes(state.v)));
    std::byte* at = data.data();
    for (const Box& box : held_boxes(graph, state.v, executor.rank())) {
      stored.resize(static_cast<std::size_t>(num_elements(box) * size_bytes(tensor->dtype)));
      checkpoint.read(*tensor, box, stored.data());
      convert(tensor->dtype, stored.data(), type.dtype, at, num_elements(box));
      at += num_elements(box) * size_bytes(type.dtype);
    }
    executor.write(state.v, data.data(), executor.local_bytes(state.v));
  }
  return Progress{meta.at("step").get<std::int64_t>(), meta.at("committed").get<std::int64_t>()};
}

}    // namespace sheaf
