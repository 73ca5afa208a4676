#pragma once
// A checkpoint: logical tensors, cut into boxes of any mesh, in safetensors files with one index. Whatever mesh wrote it, any mesh reads
// it.
//
//   step_00000200/index.json               format, meta, and per tensor: name, kind, dtype, global shape, chunks {box, file, entry};
//                                          per side file its checksum
//                 rank_00000.safetensors   the chunks of one writer; its metadata holds a checksum (XXH3, 64 bit) per chunk
//                 tokenizer.json, ...      side files: the model folder's files that are no weights, so that an export is complete
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "base/mapped_file.h"

namespace sheaf {

using Box = std::vector<std::pair<std::int64_t, std::int64_t>>;    // per dim, half-open

struct ChunkToWrite {
  std::string tensor;    // logical name; with `kind` it is unique
  std::string kind;      // "parameter", "adam_m", ...
  DType dtype = DType::fp32;
  std::vector<std::int64_t> shape;    // global
  Box box;
  const void* data = nullptr;    // the box, row-major
};

// Writes FOLDER atomically: temporary name, fsync, rename. `meta`: whatever the run needs to go on. `side_files` keep their names. Throws
// UserError with the system's reason.
void write_checkpoint(const std::string& folder, const Json& meta, std::span<const ChunkToWrite> chunks,
                      std::span<const MappedFile> side_files = {});

class Checkpoint {
 public:
  struct Chunk {
    Box box;
    std::string file, entry;
  };
  struct Tensor {
    std::string name, kind;
    DType dtype = DType::fp32;
    std::vector<std::int64_t> shape;
    std::vector<Chunk> chunks;
  };

  // Reads and checks the index: boxes inside the shape, files and entries there and of the right size. Throws UserError naming what is
  // wrong.
  explicit Checkpoint(const std::string& folder);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;

  const std::string& folder() const;
  const Json& meta() const;
  const std::vector<Tensor>& tensors() const;
  const Tensor* find(std::string_view name, std::string_view kind) const;    // nullptr: none
  std::int64_t bytes() const;                                                // of all chunks

  // The elements of `box` of a tensor, in its dtype, row-major, put together from whatever chunks hold them. UserError if some are in none.
  // Checks the checksum of every chunk that it reads.
  void read(const Tensor& tensor, const Box& box, void* to) const;
  // All checksums, and that chunks cover every tensor. progress(done bytes, all bytes). Goes on after damage: one UserError of at most 8
  // lines names the file and the chunk of each.
  void verify(const std::function<void(std::int64_t, std::int64_t)>& progress = {}) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

Box whole_box(const std::vector<std::int64_t>& shape);

// ---- the folder checkpoints/ of a run
std::string checkpoint_name(std::int64_t step);    // "step_00000200"
struct FoundCheckpoint {
  std::int64_t step;
  std::string folder;
};
std::vector<FoundCheckpoint> list_checkpoints(const std::string& folder);    // complete ones, ascending
// PATH: one step folder, a folder checkpoints/, or the output folder of a run; of the latter two the newest complete checkpoint. UserError:
// there is none.
std::string find_checkpoint(const std::string& path);
void remove_unfinished_checkpoints(const std::string& folder);    // what a killed run left behind

}    // namespace sheaf
