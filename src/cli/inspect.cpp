// Commands that show what is inside: ops, passes, opt, config, doctor.
#include <cstdio>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/commands.h"
#include "engine/config_keys.h"
#include "ops/op_table.h"
#include "passes/pass.h"
#include "runtime/device_info.h"

namespace sheaf {

Action ops_command(CLI::App& app) {
  auto markdown = std::make_shared<bool>(false);
  app.add_flag("--markdown", *markdown, "as docs/ops.md");
  return [markdown] {
    if (*markdown) return std::fputs(ops_markdown().c_str(), stdout), 0;
    std::vector<std::vector<std::string>> rows = {{"op", "operands", "rule", "computes"}};
    for (const OpDef& op : all_ops())
      rows.push_back({std::string(op.name), join({op.operands.begin(), op.operands.end()}, ", "),
                      op.rule.empty() ? "(from attributes and types)" : std::string(op.rule), std::string(op.doc)});
    std::fputs(table(rows).c_str(), stdout);
    return 0;
  };
}

Action passes_command(CLI::App& app) {
  auto markdown = std::make_shared<bool>(false);
  app.add_flag("--markdown", *markdown, "as docs/passes.md");
  return [markdown] {
    if (*markdown) return std::fputs(passes_markdown().c_str(), stdout), 0;
    std::vector<std::vector<std::string>> rows = {{"pass", "what it does"}};
    for (const Pass& pass : training_passes()) rows.push_back({std::string(pass.name), std::string(pass.summary)});
    std::fputs(table(rows).c_str(), stdout);
    return 0;
  };
}

Action opt_command(CLI::App& app) {
  struct Arguments {
    std::string file, options;
    std::vector<std::string> passes;
  };
  auto a = std::make_shared<Arguments>();
  app.add_option("file", a->file, "a graph in text form (docs/ir.md)")->required()->type_name("FILE.ir");
  app.add_option("--pass", a->passes, "a pass to run; may be given again, in order; none: parse, verify and print")->type_name("NAME");
  app.add_option("--options", a->options, "options of the passes, as {name=value, ...}; default: those of the file's options line");
  return [a] {
    std::vector<Pass> passes;
    for (const std::string& name : a->passes) passes.push_back(find_pass(name));
    const std::string text = read_file(a->file);
    IrFile file;
    try {
      file = parse_ir_file(text, all_ops());
      verify(file.graph, Level::l1);
    } catch (const UserError& error) {
      user_error("{}: {}", a->file, error.what());
    } catch (const InternalError& error) {
      user_error("{}: {}", a->file, error.what());    // here the graph is the user's
    }
    if (!a->options.empty()) file.options = Options::parse(parse_attrs(a->options));
    std::fputs(print(RunPasses{}(std::move(file.graph), passes, file.options)).c_str(), stdout);
    return 0;
  };
}

Action config_command(CLI::App& app) {
  app.footer("The text is that of docs/config.md.");
  return [] { return std::fputs(config_markdown().c_str(), stdout), 0; };
}

Action doctor_command(CLI::App&) {
  return [] {
    std::vector<std::vector<std::string>> rows = {{"LibTorch", libtorch_version()}, {"build", cuda_build() ? "cpu and cuda" : "cpu"}};
    rows.push_back({"processor", fmt::format("{} threads", std::thread::hardware_concurrency())});
    const auto gpus = gpu_descriptions();
    for (std::size_t i = 0; i < gpus.size(); ++i) rows.push_back({fmt::format("gpu {}", i), gpus[i]});
    if (gpus.empty())
      rows.push_back({"gpu", cuda_build() ? "none found" : "not looked for: this is the CPU build (make cuda builds the other)"});
    std::fputs(table(rows).c_str(), stdout);
    return 0;
  };
}

}    // namespace sheaf
