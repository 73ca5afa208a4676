#include "engine/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#ifdef __GLIBC__    // said by the headers above
#include <malloc.h>
#endif

#include "base/error.h"
#include "base/text.h"
#include "engine/corpus.h"
#include "engine/evaluation.h"
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

CorpusOptions corpus_options(const RunConfig& config, const DenseConfig& model, const std::atomic<bool>& stop) {
  return {.seq_len = config.data.seq_len,
          .packing = config.data.packing,
          .tokenizer = config.data.tokenizer,
          .field = config.data.field,
          .model_folder = config.model.folder,
          .vocab = model.vocab,
          .end_of_text = model.eos_id,
          .cache = config.data.cache.empty() ? default_cache(config.run.output) : config.data.cache,
          .held_out = config.data.eval_split,
          .stop = &stop,
          .say = [](const std::string& line) { std::printf("%s\n", line.c_str()), std::fflush(stdout); }};
}

// A run, from what was read to the model folder. Nothing is written before everything that can be refused has been looked at.
class Run {
 public:
  Run(const LoadedConfig& loaded, const TrainFlags& flags, const std::atomic<bool>& stop)
      : config_(loaded.config),
        flags_(flags),
        stop_(stop),
        device_(chosen_device(config_)),
        source_(open_model(config_.model)),
        where_(source_.folder ? source_.folder->path() + "/config.json" : "model.config"),
        model_(parse_model_config(source_.config, where_)) {
    check_output_folder(config_.run.output, flags.resume);
    corpus_.emplace(config_.data.train, corpus_options(config_, model_, stop));
    batches_ = corpus_->batches(config_.batch.global, config_.data.shuffle, static_cast<std::uint64_t>(config_.run.seed));
    if (!config_.data.eval.empty()) {
      CorpusOptions options = corpus_options(config_, model_, stop);
      options.held_out = 0;
      eval_corpus_.emplace(std::vector<CorpusFile>{{config_.data.eval}}, options);
    }
    build();
    const Json same = identity(config_, *corpus_);
    const std::string checkpoints = config_.run.output + "/checkpoints";
    if (flags.resume)
      if (const auto found = restore(*executor_, checkpoints, same, source_.config)) done_ = *found;
    resumed_at_ = done_.step;
    make_output_folder(config_.run.output);
    write_file_atomically(config_.run.output + "/run.json", resolved(config_).dump(2) + "\n");
    saver_.emplace(checkpoints, config_.run.keep, same, source_.config, as_read());
    log_.emplace(config_.run.output, RunLogOptions{.num_steps = config_.run.steps,
                                                   .log_every = config_.run.log_every,
                                                   .done = done_.step,
                                                   .stop_on_write_error = config_.run.stop_on_save_error});
    announce(loaded.banner, checkpoints);
  }

  TrainEnd go() {
    RowBuffers rows(corpus_->rows(), config_.batch.global);
    bool interrupted = false;
    while (done_.step < config_.run.steps && !interrupted) {
      StepRecord record = step(rows);
      const bool last = done_.step == config_.run.steps;
      if (evaluator_ && (last || (config_.run.eval_every > 0 && done_.step % config_.run.eval_every == 0))) record.evaluation = evaluate();
      record.last_checkpoint = std::max(saver_->last_complete(), resumed_at_);
      log_->add(record);
      if (done_.step == flags_.profile) report_profile(*log_, *executor_, config_.run.output, done_.step);
      interrupted = stop_.load();
      if (config_.run.save_every > 0 && (done_.step % config_.run.save_every == 0 || last || interrupted))
        if (const std::string error = saver_->save(*executor_, done_); !error.empty()) save_failed(*log_, config_, error);
    }
    if (interrupted) log_->say("interrupted: the step is finished, saving the model");
    if (const std::string error = saver_->finish(); !error.empty()) save_failed(*log_, config_, error);
    log_->finish();
    save_weights(*executor_, config_.run.output + "/model", source_.config, as_read());
    log_->say(log_->summary());
    return interrupted ? TrainEnd::interrupted : TrainEnd::finished;
  }

 private:
  static DeviceKind chosen_device(const RunConfig& config) {
    const DeviceKind device = config.run.device.empty()     ? default_device()
                              : config.run.device == "cuda" ? DeviceKind::cuda
                                                            : DeviceKind::cpu;
    check_device(device);
    return device;
  }
  SaveOptions as_read() const { return {.dtype = source_.dtype, .side_files_from = source_.folder ? source_.folder->path() : ""}; }
  DType compute() const { return config_.bf16 ? DType::bf16 : DType::fp32; }

  // The step's graph and executor with their weights, and the evaluation's beside it.
  void build() {
    const bool deterministic = config_.run.deterministic.value_or(device_ == DeviceKind::cpu);
    executor_.emplace(build_step(config_, source_.config, corpus_->rows().documents(), flags_),
                      ExecutorOptions{.device = device_, .deterministic = deterministic});
    if (!flags_.dump_ir.empty()) write_file_atomically(flags_.dump_ir + "/plan.txt", executor_->describe());
    if (source_.folder)
      load_weights(*executor_, *source_.folder, model_.tied_head);
    else
      init_weights(*executor_, static_cast<std::uint64_t>(config_.run.seed));
    if (const RowSet* held_out = eval_corpus_ ? &eval_corpus_->rows() : corpus_->held_out())
      evaluator_.emplace(source_.config, where_, *held_out,
                         EvaluatorOptions{.compute = compute(),
                                          .device = device_,
                                          .deterministic = deterministic,
                                          .rows_at_once = config_.batch.micro,
                                          .beside = &*executor_});
    flops_per_token_ = model_flops_per_token(model_, config_.data.seq_len);
    peak_flops_ = measured_matmul_rate(device_, compute());
    return_freed_memory();
  }

  void announce(const std::vector<std::string>& banner, const std::string& checkpoints) {
    if (flags_.resume)
      log_->say(done_.step ? fmt::format("resumed after step {}", done_.step)
                           : fmt::format("--resume: no checkpoint in {}, starting afresh", checkpoints));
    for (const std::string& line : banner) log_->say(line);
    for (const std::string& line : corpus_->description(config_.run.steps * config_.batch.global)) log_->say(line);
    const Graph& graph = executor_->graph();
    std::int64_t parameters = 0;
    for (const Value v : graph.all(ValueKind::state))
      if (graph[v].attrs.has("trainable")) parameters += num_elements(graph.type(v).shape);
    log_->say(fmt::format(
        "{} with {} parameters on {} in {}; {} rows of {} tokens, {} a step ({} micro-batches of {}); {} planned: {} states and inputs, {} "
        "for a step",
        model_.model_type, human_count(static_cast<double>(parameters)), name(device_), name(compute()), corpus_->rows().count(),
        config_.data.seq_len, config_.batch.global, config_.batch.accumulation, config_.batch.micro,
        human_bytes(static_cast<double>(executor_->planned_bytes())),
        human_bytes(static_cast<double>(executor_->memory().persistent_bytes)),
        human_bytes(static_cast<double>(executor_->memory().arena_bytes))));
    if (evaluator_) log_->say(fmt::format("held out: {} rows", evaluator_->rows().count()));
  }

  StepRecord step(RowBuffers& rows) {
    const auto begin = std::chrono::steady_clock::now();
    batches_->fill(done_.step, 0, config_.batch.global, rows.row(0));
    rows.give(*executor_);
    const Rates rate = rates(config_.scheduler, config_.optimizer, done_.committed);
    set_rates(*executor_, config_, rate, done_.committed);
    executor_->time_calls(done_.step + 1 == flags_.profile);
    executor_->run_step();
    StepRecord record;
    record.step = ++done_.step;
    record.loss = executor_->metric("loss"), record.grad_norm = executor_->metric("grad_norm");
    record.committed = executor_->metric("commit") != 0;
    done_.committed += record.committed;
    record.lr = rate.lr;
    record.tokens = static_cast<std::int64_t>(executor_->metric("tokens"));
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    record.peak_bytes = executor_->peak_bytes() + (evaluator_ ? evaluator_->executor().peak_bytes() : 0);
    const auto all_tokens = static_cast<double>(config_.batch.global * config_.data.seq_len);
    record.peak_share = peak_flops_ > 0 ? flops_per_token_ * all_tokens / record.seconds / peak_flops_ : 0;
    return record;
  }

  // Nothing if the run is interrupted meanwhile.
  std::optional<EvalRecord> evaluate() {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    auto said = begin;
    const Evaluation result = evaluator_->run(
        [&](const Evaluator::Batch& batch) {
          const auto now = Clock::now();
          if (now - said < std::chrono::seconds(30)) return;
          said = now;
          const std::int64_t done = batch.first_row + batch.rows, all = evaluator_->rows().count();
          const double seconds = std::chrono::duration<double>(now - begin).count();
          log_->say(fmt::format("evaluation: {} of {} rows, eta {}", done, all,
                                human_time(seconds * static_cast<double>(all - done) / static_cast<double>(done))));
        },
        &stop_);
    if (stop_) return std::nullopt;
    return EvalRecord{
        .step = done_.step, .loss = result.loss, .perplexity = result.perplexity(), .tokens = result.tokens, .seconds = result.seconds};
  }

  const RunConfig& config_;
  const TrainFlags& flags_;
  const std::atomic<bool>& stop_;
  DeviceKind device_;
  Model source_;
  std::string where_;    // the model's configuration is from
  DenseConfig model_;
  std::optional<Corpus> corpus_, eval_corpus_;
  std::unique_ptr<Batches> batches_;
  std::optional<Executor> executor_;
  std::optional<Evaluator> evaluator_;
  double flops_per_token_ = 0, peak_flops_ = 0;
  Progress done_;
  std::int64_t resumed_at_ = 0;
  std::optional<Saver> saver_;
  std::optional<RunLog> log_;
};

}    // namespace

TrainEnd train(const LoadedConfig& loaded, const TrainFlags& flags, const std::atomic<bool>& stop) { return Run(loaded, flags, stop).go(); }

}    // namespace sheaf
