#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "cli/bench.h"
#include "cli/interrupt.h"
#include "engine/bench/convergence.h"

namespace sheaf {
namespace {

constexpr const char* kCorpus = "out/corpus.txt";

struct Arguments {
  std::vector<std::string> families;
  ConvergenceOptions options;
};

int compare(const Arguments& a, const std::atomic<bool>& stop) {
  ConvergenceOptions options = a.options;
  options.models = chosen_tiny_models(a.families);
  std::error_code ignored;
  if (options.data.empty()) {
    options.data = kCorpus;
    if (!std::filesystem::exists(kCorpus, ignored))
      user_error("{}: not there; in Sheaf's source tree `make corpus` makes it, or name any text with --data FILE", kCorpus);
  }
  options.output = fresh_folder(options.output, "convergence", "results.json");
  const ConvergenceResult result = run_convergence(options, stop, [](const ConvergenceResult& so_far) {
    std::printf("%s\n", convergence_text(so_far.families.back()).c_str());
    std::fflush(stdout);
    write_convergence(so_far);
  });
  if (!result.families.empty()) {
    write_convergence(result);
    std::printf("%s\n%s", convergence_verdict(result).c_str(),
                table({{"page:", options.output + "/index.html"},
                       {"tables:", options.output + "/table.md"},
                       {"numbers:", options.output + "/results.json"},
                       {"runs:", options.output + "/runs"}})
                    .c_str());
  }
  return result.interrupted ? 130 : result.passed() ? 0 : 1;
}

}    // namespace

Action bench_convergence_command(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  app.add_option("--families", a->families, "which, by model_type: " + join(tiny_families(), ", ") + "; default: all")
      ->delimiter(',')
      ->type_name("A,B,..");
  app.add_option("--steps", a->options.steps, "updates of each run")->check(CLI::Range(1, 100000))->capture_default_str();
  app.add_option("--seq-len", a->options.seq_len, "tokens of a row")->check(CLI::Range(2, 512))->capture_default_str();
  app.add_option("--data", a->options.data,
                 fmt::format("text, whose bytes are the tokens; default: {}, which `make corpus` makes", kCorpus))
      ->type_name("FILE");
  app.add_option("--output", a->options.output, "the folder for tables, page and runs; default: out/convergence-N, the next free N")
      ->type_name("DIR");
  app.add_option("--device", a->options.device, "cpu or cuda; default: a GPU if there is one")->check(CLI::IsMember({"cpu", "cuda"}));
  app.footer(
      "Trains the tiny model of each family from scratch, in fp32: on one rank, on one rank in another order of sums, and on meshes of 4 "
      "and\n"
      "8 ranks, which are threads of this process. Prints a table a family; writes index.html, table.md and results.json after each. Exit "
      "code\n"
      "1 if a mesh is further than 1e-5 from one rank in the first 20 updates. Ctrl-C keeps what is done. docs/benchmarks.md");
  return [a]() -> int { return until_interrupted([&](const std::atomic<bool>& stop) { return compare(*a, stop); }); };
}

}    // namespace sheaf
