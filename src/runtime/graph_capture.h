#pragma once
// Work on a GPU as a graph: recorded once, given to a stream again in one launch.
#include <functional>
#include <memory>

namespace sheaf {

class CapturedGraph {
 public:
  virtual ~CapturedGraph() = default;
  // On the calling thread's stream.
  virtual void launch() = 0;
};

// What `work` gives to the calling thread's stream (not the default one), and to streams that it forks off and joins again; nothing of it
// runs. Launches keep their arguments, so addresses must stay, and the host is not asked again: `work` must not wait for the device, nor
// allocate there. Work of other threads goes on meanwhile.
std::unique_ptr<CapturedGraph> capture_graph(const std::function<void()>& work);

}    // namespace sheaf
