#include "checkpoint/checkpoint.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/atomic_folder.h"
#include "checkpoint/safetensors.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

std::int64_t extent(const std::pair<std::int64_t, std::int64_t>& range) { return range.second - range.first; }
std::int64_t num_elements(const Box& box) {
  std::int64_t n = 1;
  for (const auto& range : box) n *= extent(range);
  return n;
}
std::vector<std::int64_t> shape_of(const Box& box) {
  std::vector<std::int64_t> shape;
  for (const auto& range : box) shape.push_back(extent(range));
  return shape;
}
std::string checksum(std::span<const std::byte> bytes) { return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size())); }

Json box_json(const Box& box) {
  Json out = Json::array();
  for (const auto& [begin, end] : box) out.push_back({begin, end});
  return out;
}

// Copies the common part of two boxes between row-major buffers, one contiguous run of the last dim at a time.
std::int64_t copy_common(const Box& from_box, const std::byte* from, const Box& to_box, std::byte* to, std::int64_t element) {
  const std::size_t ndim = from_box.size();
  Box common(ndim);
  for (std::size_t d = 0; d < ndim; ++d) {
    common[d] = {std::max(from_box[d].first, to_box[d].first), std::min(from_box[d].second, to_box[d].second)};
    if (extent(common[d]) <= 0) return 0;
  }
  const std::int64_t run = ndim == 0 ? 1 : extent(common.back()), total = num_elements(common);
  std::vector<std::int64_t> at;
  for (const auto& range : common) at.push_back(range.first);
  const auto offset = [&](const Box& box) {
    std::int64_t o = 0;
    for (std::size_t d = 0; d < ndim; ++d) o = o * extent(box[d]) + at[d] - box[d].first;
    return o * element;
  };
  for (std::int64_t done = 0; done < total; done += run) {
    std::memcpy(to + offset(to_box), from + offset(from_box), static_cast<std::size_t>(run * element));
    for (std::size_t d = ndim > 0 ? ndim - 1 : 0; d-- > 0;) {
      if (++at[d] < common[d].second) break;
      at[d] = common[d].first;
    }
  }
  return total;
}

}    // namespace

Box whole_box(const std::vector<std::int64_t>& shape) {
  Box box;
  for (const std::int64_t n : shape) box.emplace_back(0, n);
  return box;
}

void write_checkpoint(const std::string& folder, const Json& meta, std::span<const ChunkToWrite> chunks,
                      std::span<const MappedFile> side_files) {
  constexpr std::string_view kFile = "rank_00000.safetensors";
  AtomicFolder out(folder, "index.json");
  Json tensors = Json::array();
  std::map<std::pair<std::string, std::string>, std::size_t> position;
  std::vector<TensorToWrite> entries;
  std::map<std::string, std::string> sums;
  std::vector<std::span<const std::byte>> data;
  for (const ChunkToWrite& chunk : chunks) {
    const auto [found, fresh] = position.emplace(std::pair(chunk.tensor, chunk.kind), tensors.size());
    if (fresh)
      tensors.push_back({{"name", chunk.tensor},
                         {"kind", chunk.kind},
                         {"dtype", std::string(name(chunk.dtype))},
                         {"shape", chunk.shape},
                         {"chunks", Json::array()}});
    Json& list = tensors[found->second]["chunks"];
    const std::string entry = fmt::format("{}/{}#{}", chunk.kind, chunk.tensor, list.size());
    const std::int64_t bytes = num_elements(chunk.box) * size_bytes(chunk.dtype);
    data.emplace_back(static_cast<const std::byte*>(chunk.data), static_cast<std::size_t>(bytes));
    sums[entry] = checksum(data.back());
    entries.push_back({entry, chunk.dtype, shape_of(chunk.box)});
    list.push_back({{"box", box_json(chunk.box)}, {"file", std::string(kFile)}, {"entry", entry}});
  }
  const std::string header = safetensors_header(entries, sums);
  OutputFile file = out.create(std::string(kFile));
  file.write_at(0, header);
  auto offset = static_cast<std::int64_t>(header.size());
  for (const auto& bytes : data) {
    file.write_at(offset, bytes);
    offset += static_cast<std::int64_t>(bytes.size());
  }
  file.sync_and_close();
  Json index;
  index["format"] = "sheaf checkpoint";
  index["version"] = 1;
  index["meta"] = meta;
  index["tensors"] = std::move(tensors);
  for (const MappedFile& side : side_files) {
    const std::string side_name = fs::path(side.path()).filename();
    OutputFile copy = out.create(side_name);
    copy.write_at(0, side.bytes());
    copy.sync_and_close();
    index["side_files"][side_name] = checksum(side.bytes());
  }
  out.write("index.json", index.dump(1) + "\n");
  out.commit();
}

struct Checkpoint::Impl {
  std::string folder;
  Json meta;
  std::vector<Tensor> tensors;
  std::map<std::pair<std::string_view, std::string_view>, const Tensor*> by_name;    // name, kind
  std::map<std::string, std::string> side_files;                                     // name -> checksum
  std::map<std::string, SafetensorsFile> files;
  std::map<std::string, std::map<std::string, const StoredTensor*>> entries;    // file -> entry

  static void check_file_name(const std::string& where, const std::string& file) {
    if (file.empty() || file == ".." || file.find('/') != std::string::npos)
      user_error("{}: file {} lies outside the checkpoint", where, quote(file));
  }
  const StoredTensor& stored(const Chunk& chunk) const { return *entries.at(chunk.file).at(chunk.entry); }

  void check(const Chunk& chunk) const {
    const StoredTensor& s = stored(chunk);
    const auto& sums = files.at(chunk.file).metadata();
    const auto wanted = sums.find(chunk.entry);
    if (wanted == sums.end()) user_error("{}/{}: no checksum for {}", folder, chunk.file, quote(chunk.entry));
    if (const std::string found = checksum(s.bytes); found != wanted->second)
      user_error("{}/{}: {} is damaged: checksum {}, {} was written", folder, chunk.file, quote(chunk.entry), found, wanted->second);
  }

  void open_chunk(const std::string& where, const Tensor& tensor, const Chunk& chunk) {
    if (chunk.box.size() != tensor.shape.size())
      user_error("{}: a box of {} has {} dims, the tensor {}", where, quote(tensor.name), chunk.box.size(), tensor.shape.size());
    for (std::size_t d = 0; d < chunk.box.size(); ++d)
      if (chunk.box[d].first < 0 || chunk.box[d].second < chunk.box[d].first || chunk.box[d].second > tensor.shape[d])
        user_error("{}: a box of {} is [{}, {}) in dim {}, which has {}", where, quote(tensor.name), chunk.box[d].first,
                   chunk.box[d].second, d, tensor.shape[d]);
    check_file_name(where, chunk.file);
    if (!files.contains(chunk.file)) {
      const auto& file = files.emplace(chunk.file, SafetensorsFile(folder + "/" + chunk.file)).first->second;
      for (const StoredTensor& t : file.tensors()) entries[chunk.file][t.name] = &t;
    }
    const auto found = entries[chunk.file].find(chunk.entry);
    if (found == entries[chunk.file].end()) user_error("{}: {} has no {}", where, chunk.file, quote(chunk.entry));
    if (found->second->dtype != tensor.dtype || found->second->shape != shape_of(chunk.box))
      user_error("{}: {} in {} is not {} {}", where, quote(chunk.entry), chunk.file, name(tensor.dtype), shape_text(shape_of(chunk.box)));
  }
};

Checkpoint::Checkpoint(const std::string& folder) : impl_(std::make_unique<Impl>()) {
  impl_->folder = folder;
  const std::string path = folder + "/index.json";
  const Json index = read_json(path);
  try {
    if (index.at("format") != "sheaf checkpoint") user_error("{}: is not a sheaf checkpoint", path);
    if (index.at("version") != 1) user_error("{}: version {}, this program reads version 1", path, index.at("version").dump());
    impl_->meta = index.at("meta");
    for (const Json& t : index.at("tensors")) {
      const auto dtype = dtype_from_name(t.at("dtype").get<std::string>());
      if (!dtype) user_error("{}: no dtype {}", path, t.at("dtype").dump());
      Tensor tensor{
          t.at("name").get<std::string>(), t.at("kind").get<std::string>(), *dtype, t.at("shape").get<std::vector<std::int64_t>>(), {}};
      checked_bytes(tensor.dtype, tensor.shape, fmt::format("{}: {}", path, quote(tensor.name)));
      for (const Json& c : t.at("chunks"))
        tensor.chunks.push_back({c.at("box").get<Box>(), c.at("file").get<std::string>(), c.at("entry").get<std::string>()});
      for (const Chunk& chunk : tensor.chunks) impl_->open_chunk(path, tensor, chunk);
      impl_->tensors.push_back(std::move(tensor));
    }
    for (const Tensor& tensor : impl_->tensors)
      if (!impl_->by_name.emplace(std::pair(std::string_view(tensor.name), std::string_view(tensor.kind)), &tensor).second)
        user_error("{}: {} of {} is there twice", path, tensor.kind, quote(tensor.name));
    if (index.contains("side_files"))
      for (const auto& [side_name, sum] : index["side_files"].items()) {
        Impl::check_file_name(path, side_name);
        impl_->side_files[side_name] = sum.get<std::string>();
      }
  } catch (const Json::exception& error) {
    user_error("{}: is not an index of a checkpoint: {}", path, error.what());
  }
}
Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;

const std::string& Checkpoint::folder() const { return impl_->folder; }
const Json& Checkpoint::meta() const { return impl_->meta; }
const std::vector<Checkpoint::Tensor>& Checkpoint::tensors() const { return impl_->tensors; }

const Checkpoint::Tensor* Checkpoint::find(std::string_view name, std::string_view kind) const {
  const auto found = impl_->by_name.find({name, kind});
  return found == impl_->by_name.end() ? nullptr : found->second;
}

std::int64_t Checkpoint::bytes() const {
  std::int64_t sum = 0;
  for (const Tensor& tensor : impl_->tensors)
    for (const Chunk& chunk : tensor.chunks) sum += static_cast<std::int64_t>(impl_->stored(chunk).bytes.size());
  return sum;
}

void Checkpoint::read(const Tensor& tensor, const Box& box, void* to) const {
  std::int64_t found = 0;
  for (const Chunk& chunk : tensor.chunks) {
    bool common = true;
    for (std::size_t d = 0; d < box.size(); ++d)
      common &= std::max(chunk.box[d].first, box[d].first) < std::min(chunk.box[d].second, box[d].second);
    if (!common) continue;
    impl_->check(chunk);
    found += copy_common(chunk.box, impl_->stored(chunk).bytes.data(), box, static_cast<std::byte*>(to), size_bytes(tensor.dtype));
  }
  if (found != num_elements(box))
    user_error("{}: the chunks of {} hold {} of the {} wanted elements", impl_->folder, quote(tensor.name), found, num_elements(box));
}

void Checkpoint::verify(const std::function<void(std::int64_t, std::int64_t)>& progress) const {
  std::vector<std::string> damage;
  const auto look = [&](auto&& check) {
    try {
      check();
    } catch (const UserError& error) {
      damage.emplace_back(error.what());
    }
  };
  for (const auto& side : impl_->side_files)
    look([&] {
      const MappedFile file(impl_->folder + "/" + side.first);
      if (checksum(file.bytes()) != side.second) user_error("{}: is damaged: another checksum was written", file.path());
    });
  const std::int64_t all = bytes();
  std::int64_t done = 0;
  for (const Tensor& tensor : impl_->tensors) {
    std::int64_t elements = 0;
    for (const Chunk& chunk : tensor.chunks) {
      look([&] { impl_->check(chunk); });
      elements += num_elements(chunk.box);
      done += static_cast<std::int64_t>(impl_->stored(chunk).bytes.size());
      if (progress) progress(done, all);
    }
    look([&] {
      if (elements != num_elements(whole_box(tensor.shape)))
        user_error("{}: the chunks of {} hold {} elements, the tensor has {}", impl_->folder, quote(tensor.name), elements,
                   num_elements(whole_box(tensor.shape)));
    });
  }
  if (damage.empty()) return;
  constexpr std::size_t kShown = 7;
  if (damage.size() > kShown + 1) {
    const std::size_t more = damage.size() - kShown;
    damage.resize(kShown);
    damage.push_back(fmt::format("and {} more", more));
  }
  throw UserError(join(damage, "\n"));
}

std::string checkpoint_name(std::int64_t step) { return fmt::format("step_{:08}", step); }

static bool is_checkpoint_name(const std::string& name) {
  return name.size() >= 13 && name.size() <= 5 + 18 && name.starts_with("step_") &&
         std::all_of(name.begin() + 5, name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::vector<FoundCheckpoint> list_checkpoints(const std::string& folder) {
  std::vector<FoundCheckpoint> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (const std::string name = entry.path().filename(); is_checkpoint_name(name))
      out.push_back({std::stoll(name.substr(5)), entry.path()});
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return out;
}

std::string find_checkpoint(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) user_error("{}: no such folder; a checkpoint, or the output folder of a run was wanted", path);
  if (fs::exists(fs::path(path) / "index.json", ignored)) return path;
  for (const fs::path& folder : {fs::path(path) / "checkpoints", fs::path(path)})
    if (const auto found = list_checkpoints(folder); !found.empty()) return found.back().folder;
  user_error("{}: holds no complete checkpoint; wanted the output folder of a run, its checkpoints/, or one of the folders {} in there",
             path, checkpoint_name(200));
}

void remove_unfinished_checkpoints(const std::string& folder) {
  std::error_code error;
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (const std::string name = entry.path().filename(); name.starts_with("step_") && name.find(".tmp") != std::string::npos)
      stale.push_back(entry.path());
  for (const fs::path& path : stale) fs::remove_all(path, error);
}

}    // namespace sheaf
