#pragma once
#include "cli/commands.h"

namespace sheaf {

Action bench_convergence_command(CLI::App& app);
Action bench_moe_command(CLI::App& app);

}    // namespace sheaf
