#include "checkpoint/checkpoint_writer.h"

#include <exception>
#include <filesystem>
#include <map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/checksum.h"
#include "checkpoint/safetensors.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

Json box_json(const Box& box) {
  Json out = Json::array();
  for (const auto& [begin, end] : box) out.push_back({begin, end});
  return out;
}

// Tensors by (name, kind), in the order in which they were first met.
class TensorList {
 public:
  // The entry of a tensor; `tensor` becomes it if there is none yet. `chunks` of an old entry stay.
  Json& entry(Json tensor) {
    const std::string name = tensor.at("name"), kind = tensor.at("kind");
    const auto [found, fresh] = position_.emplace(std::pair(name, kind), list_.size());
    if (fresh) {
      list_.push_back(std::move(tensor));
    } else {
      const Json& known = list_[found->second];
      SHEAF_CHECK(known.at("dtype") == tensor.at("dtype") && known.at("shape") == tensor.at("shape"), "{} of {} is {} {} and {} {}", kind,
                  quote(name), known.at("dtype").dump(), known.at("shape").dump(), tensor.at("dtype").dump(), tensor.at("shape").dump());
    }
    return list_[found->second];
  }
  Json take() { return std::move(list_); }

 private:
  Json list_ = Json::array();
  std::map<std::pair<std::string, std::string>, std::size_t> position_;
};

// Writes the file and fills `tensors`; gives the bytes of the file.
std::int64_t write_chunks(const std::string& folder, const std::string& file_name, std::span<const ChunkToWrite> chunks, Json& tensors) {
  TensorList list;
  std::vector<TensorToWrite> entries;
  std::map<std::string, std::string> sums;
  std::vector<std::span<const std::byte>> data;
  for (const ChunkToWrite& chunk : chunks) {
    Json& tensor = list.entry({{"name", chunk.tensor},
                               {"kind", chunk.kind},
                               {"dtype", std::string(name(chunk.dtype))},
                               {"shape", chunk.shape},
                               {"chunks", Json::array()}});
    Json& of_tensor = tensor["chunks"];
    const std::string entry = fmt::format("{}/{}#{}", chunk.kind, chunk.tensor, of_tensor.size());
    const std::int64_t bytes = num_elements(chunk.box) * size_bytes(chunk.dtype);
    data.emplace_back(static_cast<const std::byte*>(chunk.data), static_cast<std::size_t>(bytes));
    sums[entry] = checksum(data.back());
    entries.push_back({entry, chunk.dtype, shape_of(chunk.box)});
    of_tensor.push_back({{"box", box_json(chunk.box)}, {"file", file_name}, {"entry", entry}});
  }
  tensors = list.take();
  const std::string header = safetensors_header(entries, sums);
  OutputFile file(folder + "/" + file_name);
  file.write_at(0, header);
  auto offset = static_cast<std::int64_t>(header.size());
  for (const auto& bytes : data) {
    file.write_at(offset, bytes);
    offset += static_cast<std::int64_t>(bytes.size());
  }
  file.sync_and_close();
  return offset;
}

// An unfinished or unseen file would be found by the next reader, when it is too late.
void check_file(const std::string& folder, const Json& part) {
  if (part.at("tensors").empty()) return;
  const std::string path = folder + "/" + part.at("file").get<std::string>();
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error)
    user_error("{}: written by rank {}, not seen by rank 0 ({}); all ranks must share the file system", path, part.at("rank").dump(),
               error.message());
  if (size != part.at("bytes").get<std::uintmax_t>())
    user_error("{}: rank {} wrote {} bytes, rank 0 sees {}", path, part.at("rank").dump(), part.at("bytes").dump(), size);
}

// Every element is in exactly one chunk.
void check_tiling(const Json& tensor) {
  std::vector<Box> boxes;
  std::int64_t held = 0;
  for (const Json& chunk : tensor.at("chunks")) {
    boxes.push_back(chunk.at("box").get<Box>());
    held += num_elements(boxes.back());
  }
  const std::string what = fmt::format("{} of {}", tensor.at("kind").get<std::string>(), quote(tensor.at("name").get<std::string>()));
  if (const auto overlap = find_overlap(boxes)) {
    const Json &a = tensor.at("chunks")[overlap->first], &b = tensor.at("chunks")[overlap->second];
    SHEAF_CHECK(false, "{}: {} in {} and {} in {} overlap", what, a.at("box").dump(), a.at("file").get<std::string>(), b.at("box").dump(),
                b.at("file").get<std::string>());
  }
  const std::int64_t all = num_elements(tensor.at("shape").get<Shape>());
  SHEAF_CHECK(held == all, "{}: the chunks of all ranks hold {} of its {} elements", what, held, all);
}

// The index's `tensors`. Chunks of a tensor are in the order of ranks.
Json merge(const std::string& folder, std::span<const std::string> parts) {
  TensorList list;
  std::vector<std::string> failures;
  for (std::size_t rank = 0; rank < parts.size(); ++rank) {
    Json part = Json::parse(parts[rank], nullptr, false);
    SHEAF_CHECK(part.is_object() && part.value("rank", std::int64_t{-1}) == static_cast<std::int64_t>(rank),
                "rank {} gave no part of the checkpoint: {}", rank, quote(parts[rank].substr(0, 100)));
    if (part.contains("error")) {
      failures.push_back(part["error"]);
      continue;
    }
    check_file(folder, part);
    for (Json& tensor : part.at("tensors")) {
      Json chunks = std::exchange(tensor["chunks"], Json::array());
      Json& merged = list.entry(std::move(tensor))["chunks"];
      for (Json& chunk : chunks) merged.push_back(std::move(chunk));
    }
  }
  if (const std::size_t failed = failures.size(); failed > 8) {
    failures.resize(7);
    failures.push_back(fmt::format("and {} more ranks", failed - 7));
  }
  if (!failures.empty()) throw UserError(join(failures, "\n"));
  Json tensors = list.take();
  for (const Json& tensor : tensors) check_tiling(tensor);
  return tensors;
}

}    // namespace

std::string write_checkpoint_part(const std::string& temporary, std::int64_t rank, std::span<const ChunkToWrite> chunks) {
  const std::string file = fmt::format("rank_{:05}.safetensors", rank);
  Json part = {{"rank", rank}, {"file", file}, {"tensors", Json::array()}};
  try {
    if (!chunks.empty()) part["bytes"] = write_chunks(temporary, file, chunks, part["tensors"]);
  } catch (const UserError& failure) {
    part = {{"rank", rank}, {"error", failure.what()}};
  } catch (const std::exception& failure) {
    part = {{"rank", rank}, {"error", fmt::format("{}/{}: cannot be written: {}", temporary, file, failure.what())}};
  }
  return part.dump(-1, ' ', false, Json::error_handler_t::replace);    // a path may be no UTF-8
}

CheckpointWriter::CheckpointWriter(const std::string& folder) : folder_(folder, "index.json") {}

void CheckpointWriter::commit(const Json& meta, std::span<const std::string> parts, std::span<const MappedFile> side_files) {
  Json index;
  index["format"] = "sheaf checkpoint";
  index["version"] = 1;
  index["meta"] = meta;
  index["tensors"] = merge(temporary(), parts);
  for (const MappedFile& side : side_files) {
    const std::string name = fs::path(side.path()).filename();
    OutputFile copy = folder_.create(name);
    copy.write_at(0, side.bytes());
    copy.sync_and_close();
    index["side_files"][name] = checksum(side.bytes());
  }
  folder_.write("index.json", index.dump(1) + "\n");
  folder_.commit();
}

}    // namespace sheaf
