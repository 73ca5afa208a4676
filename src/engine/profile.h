#pragma once
#include <string>

#include "runtime/executor.h"

namespace sheaf {

// Where the time of the last timed step went, summed by op and kernel: calls, milliseconds, share, flop/s and bytes/s as the rules count
// them.
std::string profile_table(const Executor& executor);

}    // namespace sheaf
