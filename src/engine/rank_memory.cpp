#include "engine/rank_memory.h"

#include <exception>
#include <set>
#include <thread>

#include "engine/step_graph.h"
#include "runtime/device.h"

namespace sheaf {
namespace {

// Every rank of so many is looked at.
constexpr std::int64_t kAllRanks = 16;

RankMemory heaviest(const Graph& graph, const RunConfig& config, DeviceKind device, int gpu, KnownScratch& known) {
  const std::int64_t count = config.parallel.ranks;
  std::set<std::int64_t> ranks = {0, count / 2, count - 1};
  for (std::int64_t rank = 0; rank < count && count <= kAllRanks; ++rank) ranks.insert(rank);
  const bool deterministic = is_deterministic(config, device);
  std::set<ScratchBytes> seen;
  RankMemory most;
  for (const std::int64_t rank : ranks) {
    ScratchPlan scratch =
        plan_scratch(graph, {.rank = rank, .device = device, .gpu = gpu, .deterministic = deterministic, .known = &known});
    if (!seen.insert(scratch.bytes).second) continue;
    MemoryPlan plan = plan_memory(graph, scratch.bytes, {}, scratch.columns);
    const MemoryUse use = memory_use(graph, plan);
    if (use.total() > most.use.total()) most = {use, std::move(plan), std::move(scratch)};
  }
  return most;
}

}    // namespace

RankMemory heaviest_rank(const Graph& graph, const RunConfig& config, DeviceKind device, int gpu, KnownScratch& known) {
  RankMemory most;
  std::exception_ptr failed;
  // What kernels take is measured on a thread as a rank has it.
  std::thread([&] {
    try {
      gpu < 0 ? enter_rank_thread(DeviceKind::cpu, static_cast<int>(config.parallel.ranks), 0) : enter_rank_thread(device, 1, gpu);
      most = heaviest(graph, config, device, gpu, known);
    } catch (...) {
      failed = std::current_exception();
    }
  }).join();
  if (failed) std::rethrow_exception(failed);
  return most;
}

}    // namespace sheaf
