#pragma once
// The ranks of a run: threads of this process, or this process among those that a launcher started.
#include <functional>
#include <memory>
#include <string>

#include "comm/launch.h"
#include "comm/transport.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

// One rank's way to the others. Without ranks beside it there is no transport.
struct Rank {
  int index = 0, count = 1;
  Transport* transport = nullptr;
  int device_index = 0;    // of the GPUs of this machine

  bool is_first() const { return index == 0; }
  Transport* host() const { return transport ? &transport->host() : nullptr; }
};

struct RanksOptions {
  std::int64_t nproc = 1;    // threads, where no launcher gives the number
  double timeout_s = 300;
  DeviceKind device = DeviceKind::cpu;
  int threads = 0;    // of a rank, inside ops on the CPU; 0: an equal share of the machine's
};

// Runs `work` on every rank that this process has and returns when all have ended. If one throws, the others are told, and what it threw is
// thrown here: of several the one that is not the failure of another rank.
void run_ranks(const Launch& launch, const RanksOptions& options, const std::function<void(const Rank&)>& work);

// Agreement between ranks, on the host. All ranks call it; with one rank it costs nothing.
bool any_of_ranks(const Rank& rank, bool mine, std::string_view what);
bool all_of_ranks(const Rank& rank, bool mine, std::string_view what);
double max_of_ranks(const Rank& rank, double mine, std::string_view what);

}    // namespace sheaf
