#pragma once
// Transport `local`: the ranks are threads of one process; the receiver copies from the sender's memory.
#include <memory>
#include <vector>

#include "comm/transport.h"

namespace sheaf {

// How bytes are copied. On a GPU that several ranks share: `copy` on the calling thread's stream, `synchronize` waits for that stream; a
// sender synchronizes before its pieces are taken, a receiver before it says that it has them.
struct DeviceCopy {
  void (*copy)(void* dst, const void* src, std::int64_t bytes);    // never of 0 bytes
  void (*synchronize)();
};
extern const DeviceCopy kHostCopy;

struct LocalState;    // local.cpp

// Owns the ends of all ranks. Each end is used by one thread at a time, except that abort() may come from any. A rank that fails leaves
// nothing of its own behind, so its buffers may be freed; the others notice at their time limit, or at once if someone calls abort().
class LocalWorld {
 public:
  // timeout_s: how long one call may wait, in seconds.
  LocalWorld(int size, double timeout_s, const DeviceCopy& copy = kHostCopy);
  ~LocalWorld();
  LocalWorld(const LocalWorld&) = delete;
  LocalWorld& operator=(const LocalWorld&) = delete;

  int size() const { return static_cast<int>(ends_.size()); }
  Transport& at(int rank);

 private:
  std::unique_ptr<LocalState> state_;
  std::vector<std::unique_ptr<Transport>> ends_;
};

}    // namespace sheaf
