#pragma once
// Writes a checkpoint (checkpoint.h) by any number of ranks, threads or processes on a shared file system, in three steps. How ranks reach
// one another is the caller's business:
//
//   rank 0      CheckpointWriter writer(folder);                                      then tells all ranks writer.temporary()
//   every rank  std::string part = write_checkpoint_part(temporary, rank, chunks);    then rank 0 collects the parts
//   rank 0      writer.commit(meta, parts, side_files);                               then tells all ranks how it ended
#include <cstdint>
#include <span>
#include <string>

#include "base/dtype.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "checkpoint/atomic_folder.h"
#include "mesh/boxes.h"

namespace sheaf {

struct ChunkToWrite {
  std::string tensor;    // logical name; with `kind` it is unique
  std::string kind;      // "parameter", "adam_m", ...
  DType dtype = DType::fp32;
  Shape shape;    // global
  Box box;
  const void* data = nullptr;    // the box, row-major
};

// Writes the file rank_XXXXX.safetensors of a rank, flushed to the disk; no file if there are no chunks. Gives the rank's part of the
// index, as JSON. Does not throw for what went wrong (disk full, folder not seen by this machine): the part says it and commit() throws it,
// so that a rank that fails still takes part in what follows. A rank writes no element of a tensor that another writes.
std::string write_checkpoint_part(const std::string& temporary, std::int64_t rank, std::span<const ChunkToWrite> chunks);

// Rank 0's: the folder under its temporary name. Without commit() it goes away with what is in it.
class CheckpointWriter {
 public:
  explicit CheckpointWriter(const std::string& folder);    // UserError with the system's reason

  const std::string& temporary() const { return folder_.temporary(); }
  // The parts of all ranks in their order. Puts them together, writes the index and the side files, flushes, renames. `meta`: whatever the
  // run needs to go on. `side_files` keep their names. UserError: what failed in any rank, by its file; a file that is not seen from here.
  // InternalError: chunks that overlap or do not cover their tensor. After an error nothing is under the name that was not there before.
  void commit(const Json& meta, std::span<const std::string> parts, std::span<const MappedFile> side_files = {});

 private:
  AtomicFolder folder_;
};

}    // namespace sheaf
