#pragma once
// What a node has to do at least, and which part of the model it does it for.
#include <array>
#include <string>
#include <vector>

#include "runtime/executor.h"

namespace sheaf {

struct CallWork {
  double flops = 0;
  double bytes = 0;             // between memory and the device's cores if each operand is read and each result is written once
  DType dtype = DType::fp32;    // that it computes in
};
// Of this rank's pieces. An operand that is read by index counts as far as the indices reach; what is stored where it lies already, not at
// all; rows of experts as they are stored.
CallWork work_of(const Executor& executor, const Node& node);

// By segment and node. In `first` and `rest`: "model.layers.3", as the names of parameters begin up to their first number; "embedding" and
// "head" for what has no number. A node that reads no parameter works for the layer whose forward left the latest of its operands, else for
// the part that the latest one came from. In the other segments: the segment.
using Parts = std::array<std::vector<std::string>, kSegments.size()>;
Parts parts_of(const Graph& graph);

}    // namespace sheaf
