#pragma once
// A second stream of a device, for collectives: they run beside what the first one computes.
#include <cstddef>
#include <functional>
#include <memory>

namespace sheaf {

class SideStream {
 public:
  virtual ~SideStream() = default;
  // Runs `work` on the side stream, behind what the calling thread's stream has been given so far. `id`: to wait for it.
  virtual void run(std::size_t id, const std::function<void()>& work) = 0;
  // What the calling thread's stream is given from now on waits for that work; nothing if it was waited for, or is not there.
  virtual void wait_for(std::size_t id) = 0;
  virtual void wait_for_all() = 0;
  // Whether that work is done, asked by the host. Whoever uses what it made on a stream waits there too.
  virtual bool done(std::size_t id) = 0;
};

// nullptr where the device has no streams.
std::unique_ptr<SideStream> make_side_stream(int device_index);

}    // namespace sheaf
