#include <algorithm>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "cli/bench.h"
#include "cli/interrupt.h"
#include "engine/bench/device_text.h"
#include "engine/bench/moe.h"
#include "engine/bench/quiet_run.h"
#include "runtime/device.h"

namespace sheaf {
namespace {

struct Arguments {
  std::vector<std::string> sizes, meshes = {"zero3", "ep", "ep+zero3", "ep+tp2"};
  std::string dtype;
  double link = 0;    // GB/s
  MoeOptions options;
};

MoeOptions options_of(const Arguments& a) {
  MoeOptions options = a.options;
  const bool gpu = chosen_device(options.device) == DeviceKind::cuda;
  for (const std::string& name : !a.sizes.empty() ? a.sizes
                                 : gpu            ? std::vector<std::string>{"medium", "30b-a3b-6l"}
                                                  : std::vector<std::string>{"tiny", "small"})
    options.sizes.push_back(model_size(name));
  for (const std::string& text : a.meshes) options.meshes.push_back(parse_mesh_words(text));
  if (options.ranks.empty()) options.ranks = {1, 2, 4, 8};
  std::sort(options.ranks.begin(), options.ranks.end());
  options.ranks.erase(std::unique(options.ranks.begin(), options.ranks.end()), options.ranks.end());
  if (options.seq_len == 0) options.seq_len = gpu ? 4096 : 256;
  options.bf16 = a.dtype.empty() ? gpu : a.dtype == "bf16";
  options.link = a.link * 1e9;
  return options;
}

int measure(const Arguments& a, const std::atomic<bool>& stop) {
  MoeOptions options = options_of(a);
  options.output = fresh_folder(options.output, "moe", "results.json");
  const MoeResult result = run_moe(options, stop, [](const MoeResult& so_far) {
    std::printf("%s\n", moe_text(so_far.tables.back()).c_str());
    std::fflush(stdout);
    write_moe(so_far);
  });
  if (!result.tables.empty()) {
    write_moe(result);
    for (const std::string& note : moe_notes(result)) std::printf("%s\n", note.c_str());
    std::printf("%s", written_text(options.output).c_str());
  }
  return result.interrupted ? 130 : result.failed() ? 1 : 0;
}

}    // namespace

Action bench_moe_command(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  MoeOptions& o = a->options;
  app.add_option("--model-sizes", a->sizes,
                 "of " + join(model_size_names(), ", ") + ", or paths of config.json; default: tiny,small, on GPUs medium,30b-a3b-6l")
      ->delimiter(',')
      ->type_name("A,B,..");
  app.add_option("--ranks", o.ranks, "numbers of ranks; default: 1,2,4,8")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N,M,..");
  app.add_option("--meshes", a->meshes, "each words joined by +: dp, epN, etpN, tpN, spN, zero0 to zero3; ep alone: as many as fit")
      ->delimiter(',')
      ->type_name("A,B,..")
      ->capture_default_str();
  app.add_option("--device", o.device, "cpu or cuda; default: a GPU if there is one")->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--steps", o.steps, fmt::format("steps that are timed, after {}", kWarmupSteps))
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--seq-len", o.seq_len, "tokens of a row; default: 256, on GPUs 4096")->check(CLI::Range(2, 1 << 20));
  app.add_option("--micro-batch", o.rows, "rows of a rank in a step")->check(CLI::Range(1, 1 << 16))->capture_default_str();
  app.add_option("--dtype", a->dtype, "of the computation; default: fp32, on GPUs bf16")->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--link", a->link, "GB/s at which a rank sends, to estimate times of ranks that are not there")
      ->check(CLI::PositiveNumber)
      ->type_name("GB/S");
  app.add_option("--output", o.output, "the folder for tables, page and runs; default: out/moe-N, the next free N")->type_name("DIR");
  app.footer(
      "Trains each size on each number of ranks and each mesh for a few steps, on random tokens: threads of this process, on GPUs one a "
      "GPU.\n"
      "Where ranks or memory are not there, what `sheaf plan` says stands in their place, marked as predicted. Prints a table a size; "
      "writes\n"
      "index.html, table.md and results.json after each. Ctrl-C keeps what is done. docs/benchmarks.md");
  return [a]() -> int { return until_interrupted([&](const std::atomic<bool>& stop) { return measure(*a, stop); }); };
}

}    // namespace sheaf
