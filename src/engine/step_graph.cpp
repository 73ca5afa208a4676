#include "engine/step_graph.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/text.h"
#include "engine/memory_limit.h"
#include "engine/placement.h"
#include "models/model.h"

namespace sheaf {

TrainingStep training_step(const RunConfig& config, const Json& model, const ModelConfig& parsed, const StepOptions& step) {
  const ModelShape shape{.rows = config.batch.micro * config.parallel.dp, .seq_len = config.data.seq_len, .documents = step.documents};
  Graph graph = build_model(model, shape, config.bf16 ? DType::bf16 : DType::fp32, Mode::train, step.where, config.run.freeze);
  Options options;
  options.decoupled_decay = config.optimizer.decoupled();
  options.eps = config.optimizer.eps;
  options.weight_decay = config.optimizer.weight_decay;
  options.clip = config.gradient_clipping;
  options.balance_rate = config.experts.balance_rate;
  options.num_micro_batches = config.batch.accumulation;
  options.bf16_moments = config.bf16_moments;
  options.bf16_gradients = config.grad_dtype == "bf16";
  options.split_masters = config.run.master_encoding != "fp32";
  set_placement(options, config, model, parsed);
  TrainingStep out;
  if (config.run.memory_limit) out.chosen = fit_memory_limit(config, graph, step.device, step.gpu, options);
  RunPasses run;
  if (!step.dump_ir.empty()) {
    std::filesystem::create_directories(step.dump_ir);
    run.dump = [&, i = 0](std::string_view pass, const Graph& g) mutable {
      write_file_atomically(fmt::format("{}/{:02}_{}.ir", step.dump_ir, i++, pass), print(options) + print(g));
    };
  }
  out.graph = run(std::move(graph), training_passes(), options);
  const Values states = out.graph.all(ValueKind::state);
  if (config.run.master_encoding == "split" &&
      std::none_of(states.begin(), states.end(), [&](Value v) { return out.graph[v].attrs.has("high"); }))
    user_error(
        "run.master_encoding: found \"split\", but no weight lies on the same ranks in fp32 and in bf16 (bf16.enabled, ZeRO stage 0 or 3); "
        "take \"auto\"");
  return out;
}

}    // namespace sheaf
