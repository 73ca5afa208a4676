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
#include "checkpoint/export.h"
#include "checkpoint/safetensors.h"

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
  std::string folder;
  std::int64_t keep;
  Json identity;
  ModelRecord model;
  std::vector<MappedFile> side_files;    // open from the start: what became of them since then does not matter
  std::vector<std::byte> snapshot;
  std::thread writer;
  std::atomic<std::int64_t> last_complete = 0;
  std::string error;

  std::string wait() {
    if (writer.joinable()) writer.join();
    return std::exchange(error, "");
  }

  void write(const Json& meta, const std::vector<ChunkToWrite>& chunks, std::int64_t step) {
    try {
      CheckpointWriter writer(folder + "/" + checkpoint_name(step));
      const std::string part = write_checkpoint_part(writer.temporary(), 0, chunks);
      writer.commit(meta, {&part, 1}, side_files);
      last_complete = step;
      if (keep == 0) return;
      auto found = list_checkpoints(folder);
      for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < found.size(); ++i) remove_whole(found[i].folder);
    } catch (const std::exception& failure) {
      error = failure.what();
    }
  }
};

Saver::Saver(std::string folder, std::int64_t keep, Json identity, Json config, const SaveOptions& model)
    : impl_(std::make_unique<Impl>()) {
  impl_->folder = std::move(folder);
  impl_->keep = keep;
  impl_->identity = std::move(identity);
  impl_->model = {.config = std::move(config), .dtype = model.dtype, .shapes = {}};
  if (!model.side_files_from.empty())
    for (const std::string& path : side_files(model.side_files_from)) impl_->side_files.emplace_back(path);
}
Saver::~Saver() { impl_->wait(); }
std::string Saver::finish() { return impl_->wait(); }
std::int64_t Saver::last_complete() const { return impl_->last_complete; }

std::string Saver::save(const Executor& executor, const Progress& progress) {
  std::string error = impl_->wait();
  const Graph& graph = executor.graph();
  const std::vector<Stored> states = stored_states(graph);
  std::int64_t bytes = 0;
  for (const Stored& state : states) bytes += graph.type(state.v).bytes();
  impl_->snapshot.resize(static_cast<std::size_t>(bytes));
  std::vector<ChunkToWrite> chunks;
  std::byte* at = impl_->snapshot.data();
  for (const Stored& state : states) {
    const Type& type = graph.type(state.v);
    executor.read(state.v, at, type.bytes());
    if (state.kind == "parameter") impl_->model.shapes[state.name] = file_shape(graph[state.v]);
    chunks.push_back({state.name, state.kind, type.dtype, type.shape, whole_box(type.shape), at});
    at += type.bytes();
  }
  Json meta;
  meta["step"] = progress.step;
  meta["committed"] = progress.committed;
  meta["written"] = now();
  meta["identity"] = impl_->identity;
  meta["model"] = to_json(impl_->model);
  impl_->writer = std::thread([this, meta, chunks = std::move(chunks), step = progress.step] { impl_->write(meta, chunks, step); });
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

std::optional<Progress> restore(Executor& executor, const std::string& folder, const Json& identity, const Json& config) {
  remove_unfinished_checkpoints(folder);
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
  std::vector<std::byte> data;
  for (const Stored& state : stored_states(graph)) {
    const Type& type = graph.type(state.v);
    const Checkpoint::Tensor* tensor = checkpoint.find(state.name, state.kind);
    if (!tensor) user_error("{}: has no {} of {}: it is a checkpoint of another model", checkpoint.folder(), state.kind, quote(state.name));
    if (tensor->shape != type.shape || tensor->dtype != type.dtype)
      user_error("{}: {} of {} is {} {}, this model has {} {}", checkpoint.folder(), state.kind, quote(state.name), name(tensor->dtype),
                 shape_text(tensor->shape), name(type.dtype), shape_text(type.shape));
    data.resize(static_cast<std::size_t>(type.bytes()));
    checkpoint.read(*tensor, whole_box(type.shape), data.data());
    if (state.kind == "parameter")
      write_master(executor, state.v, {reinterpret_cast<const float*>(data.data()), data.size() / sizeof(float)});
    else
      executor.write(state.v, data.data(), type.bytes());
  }
  return Progress{meta.at("step").get<std::int64_t>(), meta.at("committed").get<std::int64_t>()};
}

}    // namespace sheaf
