#pragma once
// How ranks exchange bytes. One interface; what stands above it (runtime/collectives.cpp) knows no transport.
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "mesh/placement.h"

namespace sheaf {

// The ranks of one collective in order of their coordinates, the caller's among them; the same list on all of them.
using Group = std::vector<int>;

struct ConstBytes {
  const void* data = nullptr;
  std::int64_t count = 0;
};
struct Bytes {
  void* data = nullptr;
  std::int64_t count = 0;
};

// One rank's end. All ranks of a group make the same calls on it in the same order. Every call names what it is for (`what`: the
// collective, the node of the graph); a rank that waits longer than the time limit, or whose run was ended by another one, throws
// RankFailure (base/error.h).
class Transport {
 public:
  virtual ~Transport() = default;
  virtual std::string_view name() const = 0;    // local, mpi, store, nccl, null
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // send[i] goes to group[i], recv[i] comes from it; both sides agree on the number of bytes (else InternalError); the own piece is copied.
  // Pieces may be empty. Host transports return when all pieces have arrived and `send` may be written again; nccl in order of the stream.
  virtual void exchange(const Group& group, std::span<const ConstBytes> send, std::span<const Bytes> recv, std::string_view what) = 0;

  // Collectives of its own, of equal counts on all ranks. Where reduces() is false there are none: runtime/collectives.cpp makes them of
  // `exchange`, summing in the order of the group.
  virtual bool reduces() const { return false; }
  virtual void all_reduce(const Group& group, void* data, std::int64_t count, DType dtype, Reduction reduction, std::string_view what);
  // in: group.size() x count elements, out: count.
  virtual void reduce_scatter(const Group& group, const void* in, void* out, std::int64_t count, DType dtype, Reduction reduction,
                              std::string_view what);
  // in: count bytes, out: group.size() x count.
  virtual void all_gather(const Group& group, const void* in, void* out, std::int64_t count, std::string_view what);
  // The calls between the two are one launch.
  virtual void begin_batch() {}
  virtual void end_batch() {}

  // Called once for every group before its first use, by all of its ranks and in the same order: what takes long to set up is set up here.
  virtual void prepare(const Group&) {}

  // Throws RankFailure if the run was ended, here or by another rank, or the transport has seen an error. Never waits: for loops that poll.
  virtual void check() {}

  // Returns when what this rank has launched on the calling thread's stream is done. Nothing to do where calls return when they are done.
  virtual void wait() {}
  // Returns when done() is true, which it becomes by what this rank has launched. Polls it, and throws what wait() throws.
  virtual void wait_until(const std::function<bool()>& done);

  // Whether calls return at once and do their work in the order of the calling thread's stream, which may be under capture.
  virtual bool in_stream_order() const { return false; }

  // For bytes on the host: this transport, unless it carries device memory only.
  virtual Transport& host() { return *this; }

  // Ends the run on all ranks: whoever waits, or waits later, throws RankFailure with this text. Never throws, never blocks.
  virtual void abort(const std::string& why) = 0;
};

}    // namespace sheaf
