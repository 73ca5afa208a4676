#pragma once
// The segments of a plan as captured graphs. They are caches: a replay gives the device the calls that the plan has, at the same addresses,
// without the host's part of them.
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/transport.h"
#include "runtime/call.h"
#include "runtime/graph_capture.h"

namespace sheaf {

using Calls = std::array<std::vector<Call>, kSegments.size()>;

class SegmentGraphs {
 public:
  // wanted: none: of the segments where it is possible; true: of all, and a UserError says which call is in the way; false: of none.
  SegmentGraphs(std::optional<bool> wanted, DeviceKind device, const Transport* transport, const Calls& calls);

  // A step begins on this thread. Its first two steps run call by call: libraries make there what they make once per thread and stream, and
  // ranks connect.
  void begin_step();
  // Gives the segment to the thread's stream, which must be the same in all steps and not the default one. calls: does so one by one.
  void run(Segment segment, const std::function<void()>& calls);

  // "CUDA graphs: first, rest; not epilogue: ..."; "" where none are wanted or the device has none.
  std::string text() const;

 private:
  struct One {
    bool empty = true;      // nothing to launch
    std::string blocked;    // why there is no graph; "": there is one
    std::unique_ptr<CapturedGraph> graph;
  };
  bool on_;
  std::array<One, kSegments.size()> segments_;
  std::thread::id thread_;
  int steps_ = 0;    // begun on that thread
};

}    // namespace sheaf
