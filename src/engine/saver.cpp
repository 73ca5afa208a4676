#include "engine/saver.h"

#include <filesystem>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/safetensors.h"
#include "engine/weights.h"

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
  std::vector<std::byte> snapshot;
  std::thread writer;
  std::string error;

  std::string wait() {
    if (writer.joinable()) writer.join();
    return std::exchange(error, "");
  }

  void write(const Json& meta, const std::vector<ChunkToWrite>& chunks, std::int64_t step) {
    try {
      write_checkpoint(folder + "/" + checkpoint_name(step), meta, chunks);
      if (keep == 0) return;
      auto found = list_checkpoints(folder);
      for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < found.size(); ++i) remove_whole(found[i].folder);
    } catch (const std::exception& failure) {
      error = failure.what();
    }
  }
};

Saver::Saver(std::string folder, std::int64_t keep, Json identity)
    : impl_(std::make_unique<Impl>(Impl{std::move(folder), keep, std::move(identity), {}, {}, {}})) {}
Saver::~Saver() { impl_->wait(); }
std::string Saver::finish() { return impl_->wait(); }

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
    chunks.push_back({state.name, state.kind, type.dtype, type.shape, whole_box(type.shape), at});
    at += type.bytes();
  }
  Json meta;
  meta["step"] = progress.step;
  meta["committed"] = progress.committed;
  meta["identity"] = impl_->identity;
  impl_->writer = std::thread([this, meta, chunks = std::move(chunks), step = progress.step] { impl_->write(meta, chunks, step); });
  return error;
}

std::optional<Progress> restore(Executor& executor, const std::string& folder, const Json& identity) {
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
  const Graph& graph = executor.graph();
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
