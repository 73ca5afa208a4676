#include "engine/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>

#ifdef __GLIBC__    // said by the headers above
#include <malloc.h>
#endif

#include "base/error.h"
#include "base/text.h"
#include "engine/corpus.h"
#include "engine/profile.h"
#include "engine/run_log.h"
#include "engine/saver.h"
#include "engine/weights.h"
#include "models/model.h"
#include "passes/pass.h"
#include "runtime/executor.h"
#include "runtime/peak_rate.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

// Before the long work of loading: nothing is written yet.
void check_output_folder(const std::string& folder, bool resume) {
  std::error_code error;
  for (const char* mark : {"run.json", "metrics.jsonl", "model", "checkpoints", "tensorboard"})
    if (!resume && fs::exists(folder + "/" + mark, error))
      user_error("{}: already holds a run (it has {}); go on with --resume, or name another with run.output=FOLDER", folder, mark);
}

// Before the first step: a run must not end in "cannot be written".
void make_output_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) user_error("{}: cannot be made: {}", folder, error.message());
  write_file_atomically(folder + "/.writable", "");
  fs::remove(folder + "/.writable", error);
}

struct Model {
  Json config;
  std::optional<HfFolder> folder;
  DType dtype = DType::fp32;    // of the weights in the input; the output has the same
};

Model open_model(const ModelSource& source) {
  Model model;
  if (source.from_scratch()) {
    model.config = source.config.is_string() ? read_json(source.config.get<std::string>()) : source.config;
    for (const char* key : {"dtype", "torch_dtype"})
      if (model.config.contains(key) && model.config[key].is_string())
        if (const auto dtype = dtype_from_hf(model.config[key].get<std::string>()); dtype && is_float(*dtype)) model.dtype = *dtype;
  } else {
    model.folder.emplace(source.folder);
    model.config = model.folder->config();
    model.dtype = model.folder->main_dtype();
  }
  return model;
}

Graph build_step(const RunConfig& config, const Json& model, std::int64_t documents, const TrainFlags& flags) {
  const ModelShape shape{.rows = config.batch.micro, .seq_len = config.data.seq_len, .documents = documents};
  Graph graph = build_model(model, shape, config.bf16 ? DType::bf16 : DType::fp32);
  Options options;
  options.decoupled_decay = config.optimizer.decoupled();
  options.eps = config.optimizer.eps;
  options.weight_decay = config.optimizer.weight_decay;
  options.clip = config.gradient_clipping;
  options.num_micro_batches = config.batch.accumulation;
  RunPasses run;
  if (!flags.dump_ir.empty()) {
    fs::create_directories(flags.dump_ir);
    run.dump = [&, i = 0](std::string_view pass, const Graph& g) mutable {
      write_file_atomically(fmt::format("{}/{:02}_{}.ir", flags.dump_ir, i++, pass), print(options) + print(g));
    };
  }
  return run(std::move(graph), training_passes(), options);
}

// Host buffers of one step's rows, as the graph's inputs want them: [M, b, S].
class StepRows {
 public:
  StepRows(const Batches& batches, std::int64_t seq_len, std::int64_t documents, Executor& executor)
      : batches_(batches), executor_(executor) {
    const std::size_t n = static_cast<std::size_t>(batches.batch_size() * seq_len);
    for (auto* buffer : {&ids_, &labels_, &positions_}) buffer->resize(n);
    document_ends_.resize(static_cast<std::size_t>(batches.batch_size() * documents));
  }
  void load(std::int64_t step) {
    batches_.fill(step, 0, batches_.batch_size(), {ids_.data(), labels_.data(), positions_.data(), document_ends_.data()});
    give("ids", ids_), give("labels", labels_), give("positions", positions_), give("document_ends", document_ends_);
  }

 private:
  void give(const char* name, const std::vector<std::int32_t>& data) {
    if (const Value v = executor_.graph().find(name))
      executor_.write(v, data.data(), static_cast<std::int64_t>(data.size() * sizeof(std::int32_t)));
  }
  const Batches& batches_;
  Executor& executor_;
  std::vector<std::int32_t> ids_, labels_, positions_, document_ends_;
};

// What decides which rows a step sees and what they mean: a resumed run must agree on it.
Json identity(const RunConfig& config, const Corpus& corpus) {
  return {{"seed", config.run.seed},        {"train_batch_size", config.batch.global},
          {"seq_len", config.data.seq_len}, {"packing", config.data.packing == Packing::documents ? "documents" : "concat"},
          {"shuffle", config.data.shuffle}, {"rows", corpus.rows().count()},
          {"files", corpus.identity()}};
}

void set_rates(Executor& executor, const RunConfig& config, const Rates& rates, std::int64_t committed) {
  executor.set_argument("lr", rates.lr);
  executor.set_argument("beta1", rates.beta1);
  executor.set_argument("beta2", rates.beta2);
  const auto t = static_cast<double>(committed + 1);
  executor.set_argument("bias1", config.optimizer.bias_correction ? 1 - std::pow(rates.beta1, t) : 1.0);
  executor.set_argument("bias2", config.optimizer.bias_correction ? 1 - std::pow(rates.beta2, t) : 1.0);
}

// A full disk does not end a run that may outlive it, unless the user wants that.
void save_failed(RunLog& log, const RunConfig& config, const std::string& error) {
  if (config.run.stop_on_save_error) user_error("checkpoint not written: {}", error);
  log.say("WARNING: checkpoint not written, the last complete one stays: " + error);
}

void report_profile(RunLog& log, const Executor& executor, const std::string& output, std::int64_t step) {
  log.say(profile_table(executor));
  const std::string path = fmt::format("{}/profile_step_{}.json", output, step);
  write_file_atomically(path, profile_trace(executor, step));
  log.say(fmt::format("trace of step {}: {} (opens in ui.perfetto.dev and chrome://tracing)", step, path));
}

// Setting up, above all measuring kernels' scratch, takes and frees many blocks, which glibc keeps for later: a third of what a small run
// needs. A step allocates nothing of the kind.
void return_freed_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}    // namespace

TrainEnd train(const LoadedConfig& loaded, const TrainFlags& flags, const std::atomic<bool>& stop) {
  const RunConfig& config = loaded.config;
  const DeviceKind device = config.run.device.empty() ? default_device() : config.run.device == "cuda" ? DeviceKind::cuda : DeviceKind::cpu;
  check_device(device);
  const Model source = open_model(config.model);
  const DenseConfig model = parse_model_config(source.config, source.folder ? source.folder->path() + "/config.json" : "model.config");
  check_output_folder(config.run.output, flags.resume);
  const Corpus corpus(config.data.train, {.seq_len = config.data.seq_len,
                                          .packing = config.data.packing,
                                          .tokenizer = config.data.tokenizer,
                                          .field = config.data.field,
                                          .model_folder = config.model.folder,
                                          .vocab = model.vocab,
                                          .end_of_text = model.eos_id,
                                          .cache = config.data.cache.empty() ? default_cache(config.run.output) : config.data.cache,
                                          .stop = &stop,
                                          .say = [](const std::string& line) { std::printf("%s\n", line.c_str()), std::fflush(stdout); }});
  const RowSet& rows = corpus.rows();
  const auto ordered = corpus.batches(config.batch.global, config.data.shuffle, static_cast<std::uint64_t>(config.run.seed));
  const Batches& batches = *ordered;

  Graph step = build_step(config, source.config, rows.documents(), flags);
  Executor executor(std::move(step), {.device = device, .deterministic = config.run.deterministic.value_or(device == DeviceKind::cpu)});
  if (!flags.dump_ir.empty()) write_file_atomically(flags.dump_ir + "/plan.txt", executor.describe());
  if (source.folder)
    load_weights(executor, *source.folder, model.tied_head);
  else
    init_weights(executor, static_cast<std::uint64_t>(config.run.seed));
  const double flops_per_token = model_flops_per_token(model, config.data.seq_len);
  const double peak_flops = measured_matmul_rate(device, config.bf16 ? DType::bf16 : DType::fp32);

  return_freed_memory();

  const std::string checkpoints = config.run.output + "/checkpoints";
  const Json same = identity(config, corpus);
  Progress done;
  if (flags.resume)
    if (const auto found = restore(executor, checkpoints, same, source.config)) done = *found;
  make_output_folder(config.run.output);
  write_file_atomically(config.run.output + "/run.json", resolved(config).dump(2) + "\n");
  const SaveOptions as_read{.dtype = source.dtype, .side_files_from = source.folder ? source.folder->path() : ""};
  Saver saver(checkpoints, config.run.keep, same, source.config, as_read);
  RunLog log(config.run.output, {.num_steps = config.run.steps,
                                 .log_every = config.run.log_every,
                                 .done = done.step,
                                 .stop_on_write_error = config.run.stop_on_save_error});
  if (flags.resume)
    log.say(done.step ? fmt::format("resumed after step {}", done.step)
                      : fmt::format("--resume: no checkpoint in {}, starting afresh", checkpoints));
  for (const std::string& line : loaded.banner) log.say(line);
  for (const std::string& line : corpus.description(config.run.steps * config.batch.global)) log.say(line);
  std::int64_t parameters = 0;
  for (const Value v : executor.graph().all(ValueKind::state))
    if (executor.graph()[v].attrs.has("trainable")) parameters += num_elements(executor.graph().type(v).shape);
  log.say(fmt::format(
      "{} with {} parameters on {} in {}; {} rows of {} tokens, {} a step ({} micro-batches of {}); {} planned: {} states and inputs, {} "
      "for a step",
      model.model_type, human_count(static_cast<double>(parameters)), name(device), config.bf16 ? "bf16" : "fp32", rows.count(),
      config.data.seq_len, config.batch.global, config.batch.accumulation, config.batch.micro,
      human_bytes(static_cast<double>(executor.planned_bytes())), human_bytes(static_cast<double>(executor.memory().persistent_bytes)),
      human_bytes(static_cast<double>(executor.memory().arena_bytes))));

  StepRows step_rows(batches, config.data.seq_len, rows.documents(), executor);
  bool interrupted = false;
  const std::int64_t resumed_at = done.step;
  const auto save = [&] {
    if (const std::string error = saver.save(executor, done); !error.empty()) save_failed(log, config, error);
  };
  for (std::int64_t s = done.step; s < config.run.steps && !interrupted; ++s) {
    const auto begin = std::chrono::steady_clock::now();
    step_rows.load(s);
    const Rates rate = rates(config.scheduler, config.optimizer, done.committed);
    set_rates(executor, config, rate, done.committed);
    executor.time_calls(s + 1 == flags.profile);
    executor.run_step();
    StepRecord record;
    record.step = s + 1;
    record.loss = executor.metric("loss"), record.grad_norm = executor.metric("grad_norm");
    record.committed = executor.metric("commit") != 0;
    record.lr = rate.lr;
    record.tokens = static_cast<std::int64_t>(executor.metric("tokens"));
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    record.peak_bytes = executor.peak_bytes();
    const auto all_tokens = static_cast<double>(config.batch.global * config.data.seq_len);
    record.peak_share = peak_flops > 0 ? flops_per_token * all_tokens / record.seconds / peak_flops : 0;
    done.step = s + 1;
    done.committed += record.committed;
    record.last_checkpoint = std::max(saver.last_complete(), resumed_at);
    log.add(record);
    if (s + 1 == flags.profile) report_profile(log, executor, config.run.output, s + 1);
    interrupted = stop.load();
    const bool last = interrupted || done.step == config.run.steps;
    if (config.run.save_every > 0 && (done.step % config.run.save_every == 0 || last)) save();
  }
  if (interrupted) log.say("interrupted: the step is finished, saving the model");
  if (const std::string error = saver.finish(); !error.empty()) save_failed(log, config, error);
  log.finish();
  save_weights(executor, config.run.output + "/model", source.config, as_read);
  log.say(log.summary());
  return interrupted ? TrainEnd::interrupted : TrainEnd::finished;
}

}    // namespace sheaf
