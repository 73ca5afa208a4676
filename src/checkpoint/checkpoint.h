#pragma once
// A checkpoint: logical tensors, cut into boxes of any mesh, in safetensors files with one index. Whatever mesh wrote it, any mesh reads
// it.
//
//   step_00000200/index.json               format, meta, and per tensor: name, kind, dtype, global shape, chunks {box, file, entry}
//                 rank_00000.safetensors   the chunks of one writer; its metadata holds a checksum (XXH3, 64 bit) per chunk
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"

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

// Writes FOLDER atomically: temporary name, fsync, rename. `meta`: whatever the run needs to go on. Throws UserError with the system's
// reason.
void write_checkpoint(const std::string& folder, const Json& meta, std::span<const ChunkToWrite> chunks);

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

  // The elements of `box` of a tensor, in its dtype, row-major, put together from whatever chunks hold them. UserError if some are in none.
  // Checks the checksum of every chunk that it reads.
  void read(const Tensor& tensor, const Box& box, void* to) const;
  // All checksums, and that chunks cover every tensor. progress(done bytes, all bytes).
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
void remove_unfinished_checkpoints(const std::string& folder);               // what a killed run left behind

}    // namespace sheaf
