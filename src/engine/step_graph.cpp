#include "engine/step_graph.h"

#include <filesystem>

#include "base/text.h"
#include "engine/placement.h"
#include "models/model.h"

namespace sheaf {

Graph training_step(const RunConfig& config, const Json& model, const ModelConfig& parsed, const StepOptions& step) {
  const ModelShape shape{.rows = config.batch.micro * config.parallel.dp, .seq_len = config.data.seq_len, .documents = step.documents};
  Graph graph = build_model(model, shape, config.bf16 ? DType::bf16 : DType::fp32, Mode::train, step.where, config.run.freeze);
  Options options;
  options.decoupled_decay = config.optimizer.decoupled();
  options.eps = config.optimizer.eps;
  options.weight_decay = config.optimizer.weight_decay;
  options.clip = config.gradient_clipping;
  options.balance_rate = config.experts.balance_rate;
  options.num_micro_batches = config.batch.accumulation;
  set_placement(options, config, model, parsed);
  RunPasses run;
  if (!step.dump_ir.empty()) {
    std::filesystem::create_directories(step.dump_ir);
    run.dump = [&, i = 0](std::string_view pass, const Graph& g) mutable {
      write_file_atomically(fmt::format("{}/{:02}_{}.ir", step.dump_ir, i++, pass), print(options) + print(g));
    };
  }
  return run(std::move(graph), training_passes(), options);
}

}    // namespace sheaf
