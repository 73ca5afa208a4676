#pragma once
// Ctrl-C for the commands that work long.
#include <atomic>
#include <functional>

namespace sheaf {

// Calls work(stop). SIGINT and SIGTERM set `stop`, which asks for an orderly end; a second one ends the process as usual. 130 if work
// throws Interrupted, else what it returns.
int until_interrupted(const std::function<int(const std::atomic<bool>& stop)>& work);

}    // namespace sheaf
