#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/atomic_folder.h"
#include "checkpoint/convert.h"
#include "checkpoint/hf_folder.h"

namespace sheaf {
namespace {

struct Slot {
  std::size_t shard = 0;
  std::int64_t offset = 0, bytes = 0;    // offset: from the start of the file once the header is laid out
  std::int64_t written = 0;              // elements
};

bool is_side_file(const std::string& name) {
  constexpr std::string_view kNames[] = {
      "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "vocab.json",
      "merges.txt",     "added_tokens.json",     "tokenizer.model"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames) || name.starts_with("chat_template.");
}

}    // namespace

std::vector<std::string> side_files(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (is_side_file(entry.path().filename()) && entry.is_regular_file()) paths.push_back(entry.path());
  if (error) user_error("{}: cannot be read: {}", folder, error.message());
  std::sort(paths.begin(), paths.end());
  return paths;
}

void set_dtype(Json& config, DType dtype) {
  config[config.contains("torch_dtype") ? "torch_dtype" : "dtype"] = std::string(hf_name(dtype));
}

namespace {

std::string json_text(const std::string& text) { return nlohmann::json(text).dump(); }

}    // namespace

struct HfWriter::State {
  AtomicFolder folder;
  std::vector<TensorToWrite> tensors;
  std::vector<Slot> slots;
  std::map<std::string, std::size_t, std::less<>> index_of;
  std::vector<OutputFile> files;
  std::vector<std::string> file_names;
  std::vector<std::byte> buffer;

  State(const std::string& path, std::vector<TensorToWrite> tensors_to_write)
      : folder(path, "config.json"), tensors(std::move(tensors_to_write)) {
    for (std::size_t i = 0; i < tensors.size(); ++i)
      SHEAF_CHECK(index_of.emplace(tensors[i].name, i).second, "tensor {} is declared twice", quote(tensors[i].name));
  }

  std::size_t index(std::string_view name) const {
    const auto found = index_of.find(name);
    SHEAF_CHECK(found != index_of.end(), "tensor {} was not declared", quote(name));
    return found->second;
  }
  std::int64_t count(std::size_t i) const { return slots[i].bytes / size_bytes(tensors[i].dtype); }

  // In the given order, a new shard where the next tensor would not fit: as transformers cuts. A larger tensor has its own shard.
  std::vector<std::vector<std::size_t>> cut(std::int64_t max_shard_bytes) {
    std::vector<std::vector<std::size_t>> shards(1);
    std::int64_t used = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const std::int64_t bytes = checked_bytes(tensors[i].dtype, tensors[i].shape, tensors[i].name);
      if (used > 0 && bytes > max_shard_bytes - used) shards.emplace_back(), used = 0;
      slots.push_back({.shard = shards.size() - 1, .bytes = bytes});
      shards.back().push_back(i);
      used += bytes;
    }
    return shards;
  }

  // Wide dtypes first: then every tensor is aligned to its elements.
  void start_shard(std::vector<std::size_t> members) {
    std::stable_sort(members.begin(), members.end(),
                     [&](std::size_t a, std::size_t b) { return size_bytes(tensors[a].dtype) > size_bytes(tensors[b].dtype); });
    std::vector<TensorToWrite> entries;
    entries.reserve(members.size());
    for (const std::size_t i : members) entries.push_back(tensors[i]);
    const std::string header = safetensors_header(entries, {{"format", "pt"}});
    auto end = static_cast<std::int64_t>(header.size());
    for (const std::size_t i : members) slots[i].offset = std::exchange(end, end + slots[i].bytes);
    files.emplace_back(folder.create(file_names[files.size()])).write_at(0, header);
  }

  void write_index() const {
    std::int64_t total = 0;
    for (const Slot& slot : slots) total += slot.bytes;
    std::string text = fmt::format("{{\n  \"metadata\": {{\"total_size\": {}}},\n  \"weight_map\": {{", total);
    const char* separator = "\n";
    for (const auto& [name, i] : index_of) {
      text += fmt::format("{}    {}: \"{}\"", separator, json_text(name), file_names[slots[i].shard]);
      separator = ",\n";
    }
    folder.write("model.safetensors.index.json", text + "\n  }\n}\n");
  }
};

HfWriter::HfWriter(const std::string& folder, const Json& config, std::vector<TensorToWrite> tensors, const HfWriterOptions& options)
    : state_(std::make_unique<State>(folder, std::move(tensors))) {
  SHEAF_CHECK(config.is_object(), "config.json would be {}", json_type(config));
  state_->folder.write("config.json", config.dump(2) + "\n");
  if (!options.side_files_from.empty())
    for (const std::string& path : side_files(options.side_files_from)) state_->folder.copy(path, std::filesystem::path(path).filename());
  const auto shards = state_->cut(options.max_shard_bytes);
  for (std::size_t i = 0; i < shards.size(); ++i)
    state_->file_names.push_back(shards.size() == 1 ? "model.safetensors"
                                                    : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size()));
  for (const auto& members : shards) state_->start_shard(members);
  if (shards.size() > 1) state_->write_index();
}

HfWriter::~HfWriter() = default;

void HfWriter::write(std::string_view name, DType from, const void* data) {
  write_part(name, 0, state_->count(state_->index(name)), from, data);
}

void HfWriter::write_part(std::string_view name, std::int64_t first, std::int64_t count, DType from, const void* data) {
  State& state = *state_;
  const std::size_t i = state.index(name);
  const DType to = state.tensors[i].dtype;
  Slot& slot = state.slots[i];
  SHEAF_CHECK(first == slot.written && count <= state.count(i) - first, "tensor {}: elements [{}, {}) of {} are written after the first {}",
              quote(name), first, first + count, state.count(i), slot.written);
  SHEAF_CHECK(is_convertible(from, to), "tensor {}: no conversion from {} to {}", quote(name), sheaf::name(from), sheaf::name(to));
  slot.written += count;
  OutputFile& file = state.files[slot.shard];
  const std::int64_t offset = slot.offset + first * size_bytes(to);
  const auto* source = static_cast<const std::byte*>(data);
  if (from == to) return file.write_at(offset, {source, static_cast<std::size_t>(count * size_bytes(to))});

  constexpr std::int64_t kBlock = 1 << 20;    // elements
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t n = std::min(kBlock, count - begin);
    state.buffer.resize(static_cast<std::size_t>(n * size_bytes(to)));
    convert(from, source + begin * size_bytes(from), to, state.buffer.data(), n);
    file.write_at(offset + begin * size_bytes(to), state.buffer);
  }
}

void HfWriter::finish() {
  for (std::size_t i = 0; i < state_->slots.size(); ++i)
    SHEAF_CHECK(state_->slots[i].written == state_->count(i), "tensor {}: {} of {} elements were written", quote(state_->tensors[i].name),
                state_->slots[i].written, state_->count(i));
  for (OutputFile& file : state_->files) file.sync_and_close();
  state_->folder.commit();
}

}    // namespace sheaf
