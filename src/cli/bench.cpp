// sheaf bench convergence | moe
#include "cli/bench.h"

#include "base/error.h"
#include "cli/commands.h"
#include "comm/launch.h"

namespace sheaf {

Action bench_command(CLI::App& app) {
  app.require_subcommand(1);
  CLI::App* convergence = app.add_subcommand("convergence", "train mixtures of experts on meshes and on one rank, and compare the curves");
  CLI::App* moe = app.add_subcommand("moe", "speed, memory and scaling of mixtures of experts over sizes, ranks and meshes");
  const Action compare = bench_convergence_command(*convergence), measure = bench_moe_command(*moe);
  return [=]() -> int {
    if (detect_launch().by != Launch::By::none) user_error("sheaf bench starts its ranks itself, as threads; leave the launcher out");
    return convergence->parsed() ? compare() : measure();
  };
}

}    // namespace sheaf
