#pragma once
#include <cstdint>
#include <string>

#include "runtime/executor.h"

namespace sheaf {

// Where the time of the last timed step went, summed by op and kernel: calls, milliseconds, share, flop/s and bytes/s as the rules count
// them.
std::string profile_table(const Executor& executor);

// The same calls one by one as a Chrome trace (JSON, the format of chrome://tracing and Perfetto): a complete event ("ph": "X", "ts" and
// "dur" in microseconds from the start of the step) per call, on the thread of the device, with op, kernel, result, flops and bytes; above
// them, on a thread of its own, one per segment and micro-batch.
std::string profile_trace(const Executor& executor, std::int64_t step);

}    // namespace sheaf
