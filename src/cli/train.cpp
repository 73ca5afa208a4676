#include <atomic>
#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "engine/trainer.h"

namespace sheaf {
namespace {

struct TrainArguments {
  std::vector<std::string> positional;
  std::string deepspeed, model, data, device;
  std::int64_t nproc = 0;
  TrainFlags flags;
};

// Under a launcher it gives the number of ranks, and each process is one of them.
LoadedConfig load(const TrainArguments& a, const Launch& launch) {
  const std::int64_t ranks = launch.by == Launch::By::none ? 0 : launch.size;
  if (ranks > 0 && a.nproc > 0 && a.nproc != ranks)
    user_error("--nproc {}: the launcher started {} ranks, one a process; leave --nproc out", a.nproc, ranks);
  std::vector<std::string> overrides, files;
  for (const std::string& word : a.positional) (word.find('=') == std::string::npos ? files : overrides).push_back(word);
  if (!a.device.empty()) overrides.push_back("run.device=" + a.device);
  if (a.nproc) overrides.push_back("run.nproc=" + std::to_string(a.nproc));
  if (a.deepspeed.empty()) {
    if (!a.model.empty() || !a.data.empty())
      user_error("--model and --data go with --deepspeed; in a run file they are the keys model and data.train");
    if (files.size() != 1)
      user_error("train takes one run file and key.path=value overrides; found {}\nsee: sheaf train --help",
                 files.empty() ? "no file" : join(files, ", "));
    return load_config(files[0], overrides, ranks);
  }
  if (!files.empty()) user_error("with --deepspeed everything else is key.path=value; found {}", quote(files[0]));
  if (a.model.empty() || a.data.empty()) user_error("--deepspeed needs --model DIR and --data FILE");
  return load_deepspeed_config(a.deepspeed, a.model, a.data, overrides, ranks);
}

}    // namespace

Action train_command(CLI::App& app) {
  auto a = std::make_shared<TrainArguments>();
  app.add_option("run", a->positional, "RUN.json, then any key.path=value that overrides it (docs/config.md lists the keys)")
      ->type_name("RUN.json [key.path=value ...]");
  app.add_option("--deepspeed", a->deepspeed, "an existing DeepSpeed configuration, instead of RUN.json")->type_name("DS.json");
  app.add_option("--model", a->model, "with --deepspeed: the HuggingFace model folder")->type_name("DIR");
  app.add_option("--data", a->data, "with --deepspeed: the training data")->type_name("FILE");
  app.add_option("--device", a->device, "cpu or cuda; default: a GPU if there is one")->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--nproc", a->nproc, "ranks on this machine (run.nproc)")->check(CLI::Range(1, 1024));
  app.add_flag("--resume", a->flags.resume, "go on from the newest checkpoint in run.output");
  app.add_option("--profile", a->flags.profile, "time every kernel call of step N and show where the time goes")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  app.add_option("--dump-ir", a->flags.dump_ir, "write the graph after every pass, and the plan, into this folder")->type_name("DIR");
  app.footer(
      "Writes run.json, metrics.jsonl and model/ (a HuggingFace folder) into run.output. Ctrl-C finishes the step and saves the model.");
  return [a]() -> int {
    const Launch launch = detect_launch();
    const LoadedConfig config = load(*a, launch);
    return until_interrupted(
        [&](const std::atomic<bool>& stop) { return train(config, a->flags, launch, stop) == TrainEnd::interrupted ? 130 : 0; });
  };
}

}    // namespace sheaf
