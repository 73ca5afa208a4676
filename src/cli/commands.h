#pragma once
// One function per command: adds its options to the parser and says what it does. The help text is generated from these declarations.
#include <CLI/CLI.hpp>
#include <functional>

namespace sheaf {

// Returns the exit code.
using Action = std::function<int()>;

Action train_command(CLI::App& app);
Action eval_command(CLI::App& app);
Action plan_command(CLI::App& app);
Action tokenize_command(CLI::App& app);
Action ops_command(CLI::App& app);
Action passes_command(CLI::App& app);
Action opt_command(CLI::App& app);
Action config_command(CLI::App& app);
Action bench_command(CLI::App& app);
Action checkpoint_command(CLI::App& app);
Action doctor_command(CLI::App& app);

}    // namespace sheaf
