// sheaf COMMAND ...: finds the command, runs it, and turns errors into messages and exit codes: 0 done, 1 a bug of ours, 2 the user can
// mend it, 130 interrupted.
#include <cstdio>
#include <exception>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "cli/commands.h"

using namespace sheaf;

namespace {

struct Command {
  const char* name;
  const char* summary;
  Action (*add)(CLI::App&);    // nullptr: not built yet
  const char* arrives = "";
};

constexpr Command kCommands[] = {
    {"train", "train a model: the main job", train_command},
    {"plan", "placements, communication and bytes of a run on any number of ranks, without a device", plan_command},
    {"tokenize", "text to token files", tokenize_command},
    {"eval", "loss, perplexity and log-probabilities of a model on a file", eval_command},
    {"checkpoint", "show, verify or export a checkpoint", checkpoint_command},
    {"ops", "the op library", ops_command},
    {"passes", "the passes of a training step, in order", passes_command},
    {"opt", "run passes on a graph in text form", opt_command},
    {"config", "every key of a run configuration", config_command},
    {"doctor", "what this machine and this build offer", doctor_command},
    {"bench", "benchmarks: convergence, speed and memory of mixtures of experts", bench_command},
    {"generate", "text from a model", nullptr, "with generation"},
    {"rl", "reinforcement learning", nullptr, "with generation"},
};

int run(int argc, char** argv) {
  CLI::App app("sheaf trains large language models from a HuggingFace folder and one JSON file.", "sheaf");
  app.require_subcommand(1);
  app.footer("`sheaf COMMAND --help` explains a command. Documentation: docs/");
  std::vector<std::pair<CLI::App*, Action>> actions;
  std::vector<std::string> names;
  for (const Command& command : kCommands) {
    names.emplace_back(command.name);
    CLI::App* sub = app.add_subcommand(
        command.name, command.add ? command.summary : fmt::format("{} (not built yet: arrives {})", command.summary, command.arrives));
    if (command.add) {
      actions.emplace_back(sub, command.add(*sub));
    } else {
      sub->allow_extras();
      actions.emplace_back(sub,
                           [&command]() -> int { user_error("sheaf {} is not built yet: it arrives {}", command.name, command.arrives); });
    }
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    if (argc > 1 && argv[1][0] != '-' && std::find(names.begin(), names.end(), argv[1]) == names.end())
      user_error("no command {}{}; `sheaf --help` lists them", quote(argv[1]), did_you_mean(argv[1], names));
    const bool known = argc > 1 && std::find(names.begin(), names.end(), argv[1]) != names.end();
    user_error("{}\nsee: sheaf {}--help", error.what(), known ? std::string(argv[1]) + " " : "");
  }
  for (const auto& [sub, action] : actions)
    if (sub->parsed()) return action();
  return 0;
}

}    // namespace

int main(int argc, char** argv) try { return run(argc, argv); } catch (const UserError& error) {
  std::fflush(stdout);
  std::fprintf(stderr, "sheaf: %s\n", error.what());
  return 2;
} catch (const std::exception& error) {
  std::fflush(stdout);
  const std::string what = error.what();    // an error of c10 has a stack of addresses below its first line
  std::fprintf(stderr, "sheaf: internal error, a bug in sheaf: %s\n", what.substr(0, what.find('\n')).c_str());
  return 1;
}
