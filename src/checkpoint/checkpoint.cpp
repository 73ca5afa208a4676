#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/checksum.h"
#include "checkpoint/safetensors.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

// Copies the common part of two boxes between row-major buffers, in the longest runs that are contiguous in both. `span`: set to the number
// of bytes from the first to the last that was read.
std::int64_t copy_common(const Box& from_box, const std::byte* from, const Box& to_box, std::byte* to, std::int64_t element,
                         std::int64_t& span) {
  const auto found = common_part(from_box, to_box);
  if (!found) return 0;
  const Box& common = *found;
  std::size_t outer = common.size();    // the dims before it are walked
  std::int64_t run = 1;
  while (outer > 0) {
    --outer;
    run *= common[outer].second - common[outer].first;
    if (common[outer] != from_box[outer] || common[outer] != to_box[outer]) break;
  }
  Box at = common;
  for (auto& range : at) range.second = range.first + 1;
  const auto offset = [&](const Box& box) {
    std::int64_t o = 0;
    for (std::size_t d = 0; d < box.size(); ++d) o = o * (box[d].second - box[d].first) + at[d].first - box[d].first;
    return o * element;
  };
  const std::int64_t total = num_elements(common), first = offset(from_box);
  std::int64_t last = first;
  for (std::int64_t done = 0; done < total; done += run) {
    last = offset(from_box);
    std::memcpy(to + offset(to_box), from + last, static_cast<std::size_t>(run * element));
    for (std::size_t d = outer; d-- > 0;) {
      if (++at[d].first < common[d].second) break;
      at[d].first = common[d].first;
    }
  }
  span = last + run * element - first;
  return total;
}

Box box_from(const Json& json, const std::string& where) {
  Box box;
  for (const Json& range : json) {
    const auto ends = integers(range, where);
    if (ends.size() != 2) user_error("{}: a box has a dim of {} numbers; [begin, end) was wanted", where, ends.size());
    box.emplace_back(ends[0], ends[1]);
  }
  return box;
}

}    // namespace

struct Checkpoint::Impl {
  struct File {
    SafetensorsFile file;
    std::map<std::string_view, const StoredTensor*> entries;
  };
  // What is known of a tensor's chunks, in their order.
  struct Opened {
    std::vector<const StoredTensor*> stored;
    std::vector<std::int64_t> reach;               // how far in the first dim this chunk or one before it goes
    std::unique_ptr<std::atomic<bool>[]> sound;    // its checksum was found right
  };

  std::string folder;
  Json meta;
  std::vector<Tensor> tensors;
  std::vector<Opened> opened;                                                        // of each tensor
  std::map<std::pair<std::string_view, std::string_view>, const Tensor*> by_name;    // name, kind
  std::map<std::string, std::string> side_files;                                     // name -> checksum
  std::map<std::string, File> files;
  std::array<std::mutex, 64> checking;    // by chunk: one thread reads it for its checksum, others that want it wait
  std::atomic<std::int64_t> mapped = 0;

  static void check_file_name(const std::string& where, const std::string& file) {
    if (file.empty() || file == ".." || file.find('/') != std::string::npos)
      user_error("{}: file {} lies outside the checkpoint", where, quote(file));
  }

  // Pages of files that were read are given back every 64 MiB. A thread that still reads some gets them again.
  void was_read(std::int64_t bytes) {
    constexpr std::int64_t kMost = 1 << 26;
    if (mapped.fetch_add(bytes) + bytes < kMost) return;
    mapped = 0;
    for (const auto& [name, file] : files) file.file.forget();
  }

  void check(const Chunk& chunk, const StoredTensor& stored) {
    const auto& sums = files.at(chunk.file).file.metadata();
    const auto wanted = sums.find(chunk.entry);
    if (wanted == sums.end()) user_error("{}/{}: no checksum for {}", folder, chunk.file, quote(chunk.entry));
    const std::string found = checksum(stored.bytes, [&](std::size_t bytes) { was_read(static_cast<std::int64_t>(bytes)); });
    if (found != wanted->second)
      user_error("{}/{}: {} is damaged: checksum {}, {} was written", folder, chunk.file, quote(chunk.entry), found, wanted->second);
  }
  void check_once(const Tensor& tensor, const Opened& of, std::size_t i) {
    if (of.sound[i]) return;
    const std::lock_guard lock(checking[std::hash<const void*>()(of.stored[i]) / sizeof(StoredTensor) % checking.size()]);
    if (of.sound[i]) return;
    check(tensor.chunks[i], *of.stored[i]);
    of.sound[i] = true;
  }

  const StoredTensor* open_chunk(const std::string& where, const Tensor& tensor, const Chunk& chunk) {
    if (chunk.box.size() != tensor.shape.size())
      user_error("{}: a box of {} has {} dims, the tensor {}", where, quote(tensor.name), chunk.box.size(), tensor.shape.size());
    for (std::size_t d = 0; d < chunk.box.size(); ++d)
      if (chunk.box[d].first < 0 || chunk.box[d].second < chunk.box[d].first || chunk.box[d].second > tensor.shape[d])
        user_error("{}: a box of {} is [{}, {}) in dim {}, which has {}", where, quote(tensor.name), chunk.box[d].first,
                   chunk.box[d].second, d, tensor.shape[d]);
    check_file_name(where, chunk.file);
    auto file = files.find(chunk.file);
    if (file == files.end()) {
      file = files.emplace(chunk.file, File{SafetensorsFile(folder + "/" + chunk.file), {}}).first;
      for (const StoredTensor& t : file->second.file.tensors()) file->second.entries[t.name] = &t;
    }
    const auto found = file->second.entries.find(chunk.entry);
    if (found == file->second.entries.end())
      user_error("{}: {} has no {}, a chunk of {}", where, chunk.file, quote(chunk.entry), quote(tensor.name));
    if (found->second->dtype != tensor.dtype || found->second->shape != shape_of(chunk.box))
      user_error("{}: {} in {} is not {} {}", where, quote(chunk.entry), chunk.file, name(tensor.dtype), shape_text(shape_of(chunk.box)));
    return found->second;
  }

  // Sorts the chunks. Without overlap, chunks that hold as many elements as a box has in it hold each of them.
  Opened open_chunks(const std::string& where, Tensor& tensor) {
    std::sort(tensor.chunks.begin(), tensor.chunks.end(), [](const Chunk& a, const Chunk& b) { return a.box < b.box; });
    Opened out;
    std::vector<Box> boxes;
    for (const Chunk& chunk : tensor.chunks) {
      out.stored.push_back(open_chunk(where, tensor, chunk));
      boxes.push_back(chunk.box);
      const std::int64_t end = chunk.box.empty() ? 1 : chunk.box[0].second;
      out.reach.push_back(out.reach.empty() ? end : std::max(end, out.reach.back()));
    }
    if (const auto overlap = find_overlap(boxes)) {
      const Chunk &a = tensor.chunks[overlap->first], &b = tensor.chunks[overlap->second];
      user_error("{}: {} in {} and {} in {} overlap: both hold elements of {}", where, quote(a.entry), a.file, quote(b.entry), b.file,
                 quote(tensor.name));
    }
    out.sound = std::make_unique<std::atomic<bool>[]>(tensor.chunks.size());
    return out;
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
      Tensor tensor{t.at("name").get<std::string>(), t.at("kind").get<std::string>(), *dtype, integers(t.at("shape"), path), {}};
      checked_bytes(tensor.dtype, tensor.shape, fmt::format("{}: {}", path, quote(tensor.name)));
      for (const Json& c : t.at("chunks"))
        tensor.chunks.push_back({box_from(c.at("box"), path), c.at("file").get<std::string>(), c.at("entry").get<std::string>()});
      impl_->opened.push_back(impl_->open_chunks(path, tensor));
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
  for (const Impl::Opened& of : impl_->opened)
    for (const StoredTensor* stored : of.stored) sum += static_cast<std::int64_t>(stored->bytes.size());
  return sum;
}

void Checkpoint::read(const Tensor& tensor, const Box& box, void* to) const {
  const auto& tensors = impl_->tensors;
  SHEAF_CHECK(&tensor >= tensors.data() && &tensor < tensors.data() + tensors.size(), "{} is of another checkpoint", quote(tensor.name));
  SHEAF_CHECK(box.size() == tensor.shape.size(), "a box of {} dims of {}, which has {}", box.size(), quote(tensor.name),
              tensor.shape.size());
  const Impl::Opened& of = impl_->opened[static_cast<std::size_t>(&tensor - tensors.data())];
  const auto [begin, end] = box.empty() ? std::pair<std::int64_t, std::int64_t>(0, 1) : box[0];
  std::int64_t found = 0;
  // Chunks are sorted: those before `i` end before the box begins, those from the first that begins after it on are of no use.
  for (auto i = static_cast<std::size_t>(std::upper_bound(of.reach.begin(), of.reach.end(), begin) - of.reach.begin());
       i < tensor.chunks.size() && (box.empty() || tensor.chunks[i].box[0].first < end); ++i) {
    const Chunk& chunk = tensor.chunks[i];
    if (!common_part(chunk.box, box)) continue;
    impl_->check_once(tensor, of, i);
    std::int64_t span = 0;
    found += copy_common(chunk.box, of.stored[i]->bytes.data(), box, static_cast<std::byte*>(to), size_bytes(tensor.dtype), span);
    impl_->was_read(span);
  }
  if (found != num_elements(box))
    user_error("{}: the chunks of {} of {} hold {} of the {} wanted elements", impl_->folder, tensor.kind, quote(tensor.name), found,
               num_elements(box));
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
  struct Place {
    const Chunk* chunk;
    const StoredTensor* stored;
  };
  std::vector<Place> places;
  for (std::size_t t = 0; t < impl_->tensors.size(); ++t)
    for (std::size_t i = 0; i < impl_->tensors[t].chunks.size(); ++i)
      places.push_back({&impl_->tensors[t].chunks[i], impl_->opened[t].stored[i]});
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return std::pair(std::string_view(a.chunk->file), a.stored) < std::pair(std::string_view(b.chunk->file), b.stored);
  });
  const std::int64_t all = bytes();
  std::int64_t done = 0;
  for (const auto& [chunk, stored] : places) {
    look([&, c = chunk, s = stored] { impl_->check(*c, *s); });
    done += static_cast<std::int64_t>(stored->bytes.size());
    if (progress) progress(done, all);
  }
  for (const Tensor& tensor : impl_->tensors) {
    std::int64_t held = 0;
    for (const Chunk& chunk : tensor.chunks) held += num_elements(chunk.box);
    look([&] {
      if (const std::int64_t wanted = num_elements(tensor.shape); held != wanted)
        user_error("{}: the chunks of {} of {} hold {} elements, the tensor has {}", impl_->folder, tensor.kind, quote(tensor.name), held,
                   wanted);
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
