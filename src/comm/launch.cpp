#include "comm/launch.h"

#include <charconv>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

constexpr int kLargest = std::numeric_limits<int>::max();

class Variables {
 public:
  Variables(const Environment& environment, std::string_view launcher) : environment_(environment), launcher_(launcher) {}

  bool has(const char* name) const { return environment_(name) != nullptr; }

  std::string text(const char* name) const {
    const char* value = environment_(name);
    if (!value || !*value)
      user_error("{} is not set, although other variables say that {} started this process\nset it, or unset the others", name, launcher_);
    return value;
  }
  int number(const char* name, int least, int most = kLargest) const {
    const std::string value = text(name);
    int number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number < least || number > most)
      user_error("{} is {}: wanted a whole number {}\nit comes from {}; start the ranks with {} alone, or unset it", name, quote(value),
                 most == kLargest ? fmt::format("of at least {}", least) : fmt::format("from {} to {}", least, most), launcher_, launcher_);
    return number;
  }

  Launch ranks(Launch::By by, const char* rank, const char* size, const char* local_rank) const {
    Launch launch{.by = by, .rank = number(rank, 0), .size = number(size, 1), .local_rank = local_rank ? number(local_rank, 0) : -1};
    below_size(rank, launch.rank, size, launch.size);
    if (local_rank) below_size(local_rank, launch.local_rank, size, launch.size);
    return launch;
  }

 private:
  void below_size(const char* name, int value, const char* size_name, int size) const {
    if (value >= size)
      user_error(
          "{} is {} and {} is {}: ranks count from 0, so it must be less\nthey come from {}; unset them if it did not start this process",
          name, value, size_name, size, launcher_);
  }

  const Environment& environment_;
  std::string_view launcher_;
};

std::optional<Launch> open_mpi(const Environment& environment) {
  const Variables v(environment, "mpirun");
  if (!v.has("OMPI_COMM_WORLD_RANK") && !v.has("OMPI_COMM_WORLD_SIZE")) return {};
  return v.ranks(Launch::By::mpirun, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK");
}

std::optional<Launch> mpich(const Environment& environment) {
  const Variables v(environment, "mpirun");
  if (!v.has("PMI_RANK") && !v.has("PMI_SIZE")) return {};
  const char* local = v.has("MPI_LOCALRANKID") ? "MPI_LOCALRANKID" : nullptr;
  return v.ranks(Launch::By::mpirun, "PMI_RANK", "PMI_SIZE", local);
}

std::optional<Launch> slurm(const Environment& environment) {
  const Variables v(environment, "srun");
  if (!v.has("SLURM_STEP_ID")) return {};
  // The shell of an interactive allocation is a step of one task, though the job has SLURM_NTASKS.
  const char* size = v.has("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  if (!v.has(size) || v.number(size, 1) == 1) return {};
  return v.ranks(Launch::By::srun, "SLURM_PROCID", size, "SLURM_LOCALID");
}

std::optional<Launch> torchrun(const Environment& environment) {
  const Variables v(environment, "torchrun");
  if (!v.has("RANK") && !v.has("WORLD_SIZE")) return {};
  Launch launch = v.ranks(Launch::By::torchrun, "RANK", "WORLD_SIZE", "LOCAL_RANK");
  launch.master_addr = v.text("MASTER_ADDR");
  launch.master_port = v.number("MASTER_PORT", 1, 65535);
  launch.agent_has_store = v.has("TORCHELASTIC_USE_AGENT_STORE") && v.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  if (v.has("TORCHELASTIC_RESTART_COUNT")) launch.attempt = v.number("TORCHELASTIC_RESTART_COUNT", 0);
  return launch;
}

}    // namespace

Launch detect_launch(const Environment& environment) {
  for (const auto detect : {open_mpi, mpich, slurm, torchrun})
    if (const std::optional<Launch> launch = detect(environment)) return *launch;
  return {};
}

Launch detect_launch() {
  return detect_launch([](const char* name) { return std::getenv(name); });    // NOLINT(concurrency-mt-unsafe)
}

}    // namespace sheaf
