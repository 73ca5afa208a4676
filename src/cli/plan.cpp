// sheaf plan: what a run would hold and send, without a device.
#include "engine/plan.h"

#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "cli/commands.h"

namespace sheaf {

Action plan_command(CLI::App& app) {
  struct Arguments {
    std::vector<std::string> positional;
    std::int64_t ranks = 0;
    std::string device;
    double load = 2;
    bool json = false, all = false;
  };
  auto a = std::make_shared<Arguments>();
  app.add_option("run", a->positional, "RUN.json, then any key.path=value that overrides it (docs/config.md lists the keys)")
      ->type_name("RUN.json [key.path=value ...]");
  app.add_option("--ranks", a->ranks, "ranks of the run; default: run.nproc")->check(CLI::Range(1, 1 << 20));
  app.add_option("--device", a->device, "cpu or cuda (run.device); default: what this build is for")->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--load", a->load, "of experts cut over ranks: rows of the busiest rank over the mean, for the second figure of its bytes")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  app.add_flag("--json", a->json, "as one JSON object (docs/planning.md lists its keys)");
  app.add_flag("--all", a->all, "every parameter on a line of its own, not one line for all layers");
  app.footer(
      "Prints the mesh, where every parameter lies, what a rank sends in a step and the bytes that it needs. Reads the run file and the\n"
      "model's config.json; neither data nor weights need be there. Writes nothing. docs/planning.md explains the output.");
  return [a] {
    std::vector<std::string> overrides, files;
    for (const std::string& word : a->positional) (word.find('=') == std::string::npos ? files : overrides).push_back(word);
    if (files.size() != 1)
      user_error("plan takes one run file and key.path=value overrides; found {}\nsee: sheaf plan --help",
                 files.empty() ? "no file" : join(files, ", "));
    if (!a->device.empty()) overrides.push_back("run.device=" + a->device);
    const RunPlan plan = plan_run(load_config(files[0], overrides, a->ranks).config, a->load);
    std::fputs((a->json ? to_json(plan).dump(1) + "\n" : print(plan, a->all)).c_str(), stdout);
    return 0;
  };
}

}    // namespace sheaf
