#pragma once
// A checkpoint: logical tensors, cut into boxes of any mesh, in safetensors files with one index. Whatever mesh wrote it, any mesh reads
// it. checkpoint_writer.h writes one.
//
//   step_00000200/index.json               format, meta, and per tensor: name, kind, dtype, global shape, chunks {box, file, entry};
//                                          per side file its checksum
//                 rank_00000.safetensors   the chunks of one rank; its metadata holds a checksum (XXH3, 64 bit) per chunk
//                 tokenizer.json, ...      side files: the model folder's files that are no weights, so that an export is complete
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "mesh/boxes.h"

namespace sheaf {

// May be read by several threads at once.
class Checkpoint {
 public:
  struct Chunk {
    Box box;
    std::string file, entry;
  };
  struct Tensor {
    std::string name, kind;
    DType dtype = DType::fp32;
    Shape shape;
    std::vector<Chunk> chunks;    // sorted by box
  };

  // Reads and checks the index: boxes inside the shape and without overlap, files and entries there and of the right size. Throws UserError
  // naming what is wrong.
  explicit Checkpoint(const std::string& folder);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;

  const std::string& folder() const;
  const Json& meta() const;
  const std::vector<Tensor>& tensors() const;
  const Tensor* find(std::string_view name, std::string_view kind) const;    // nullptr: none
  std::int64_t bytes() const;                                                // of all chunks

  // The elements of `box` of a tensor (one of tensors()), in its dtype, row-major, put together from whatever chunks hold them. UserError
  // if some are in none. The checksum of a chunk is looked at before its first byte is given out, and then never again. What is read does
  // not stay in this process's memory.
  void read(const Tensor& tensor, const Box& box, void* to) const;
  // All checksums, file by file, and that chunks cover every tensor. progress(done bytes, all bytes). Goes on after damage: one UserError
  // of at most 8 lines names the file and the chunk of each.
  void verify(const std::function<void(std::int64_t, std::int64_t)>& progress = {}) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

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
