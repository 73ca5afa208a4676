#include "engine/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>

#ifdef __GLIBC__    // said by the headers above
#include <malloc.h>
#endif

#include "base/error.h"
#include "base/text.h"
#include "engine/evaluation.h"
#include "engine/placement.h"
#include "engine/plan_report.h"
#include "engine/profile.h"
#include "engine/run_inputs.h"
#include "engine/run_log.h"
#include "engine/saver.h"
#include "engine/slow_calls.h"
#include "engine/weights.h"
#include "models/model.h"
#include "passes/pass.h"
#include "runtime/device.h"
#include "runtime/executor.h"
#include "runtime/peak_rate.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

// Before the first step: a run must not end in "cannot be written".
void make_output_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) user_error("{}: cannot be made: {}", folder, error.message());
  write_file_atomically(folder + "/.writable", "");
  fs::remove(folder + "/.writable", error);
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
  executor.set_argument(kMicroBatchShare, 1.0 / static_cast<double>(executor.num_micro_batches()));
  executor.set_argument("beta1", rates.beta1);
  executor.set_argument("beta2", rates.beta2);
  const auto t = static_cast<double>(committed + 1);
  executor.set_argument("bias1", config.optimizer.bias_correction ? 1 - std::pow(rates.beta1, t) : 1.0);
  executor.set_argument("bias2", config.optimizer.bias_correction ? 1 - std::pow(rates.beta2, t) : 1.0);
}

// Setting up, above all measuring kernels' scratch, takes and frees many blocks, which glibc keeps for later: a third of what a small run
// needs. A step allocates nothing of the kind.
void return_freed_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

// A run on one rank. What is said and written, rank 0 says and writes.
class Run {
 public:
  Run(const RunInputs& in, const Rank& rank, const std::vector<std::string>& banner)
      : in_(in),
        config_(in.config),
        rank_(rank),
        batches_(in.corpus->batches(config_.batch.global, config_.data.shuffle, static_cast<std::uint64_t>(config_.run.seed))),
        executor_(in.step, {.device = in.device,
                            .device_index = rank.device_index,
                            .deterministic = in.deterministic(),
                            .transport = rank.transport,
                            .cuda_graphs = in.config.run.cuda_graphs}) {
    build();
    const Json same = identity(config_, *in.corpus);
    const std::string checkpoints = config_.run.output + "/checkpoints";
    if (in.flags.resume)
      if (const auto found = restore(rank, executor_, checkpoints, same, in.source.config)) done_ = *found;
    resumed_at_ = done_.step;
    if (rank.is_first()) {
      make_output_folder(config_.run.output);
      write_file_atomically(config_.run.output + "/run.json", resolved(config_).dump(2) + "\n");
    }
    saver_.emplace(rank, checkpoints, config_.run.keep, same, in.source.config, as_read());
    if (rank.is_first()) {
      log_.emplace(config_.run.output, RunLogOptions{.num_steps = config_.run.steps,
                                                     .log_every = config_.run.log_every,
                                                     .done = done_.step,
                                                     .stop_on_write_error = config_.run.stop_on_save_error,
                                                     .quiet = in.quiet()});
      announce(banner, checkpoints);
    }
  }

  TrainEnd go() {
    RowBuffers rows(in_.corpus->rows(), executor_);
    bool interrupted = false;
    while (done_.step < config_.run.steps && !interrupted) {
      StepRecord record = step(rows);
      const bool last = done_.step == config_.run.steps;
      if (evaluator_ && (last || (config_.run.eval_every > 0 && done_.step % config_.run.eval_every == 0))) record.evaluation = evaluate();
      save_failed(saver_->poll());
      record.last_checkpoint = std::max(saver_->last_complete(), resumed_at_);
      if (log_) log_->add(record);
      if (log_ && in_.quiet()) in_.flags.watch(record);
      if (log_ && done_.step == in_.flags.profile) log_->say(write_profile(executor_, rates_, config_.run.output, done_.step));
      interrupted = stopped();
      if (config_.run.save_every > 0 && (done_.step % config_.run.save_every == 0 || last || interrupted))
        save_failed(saver_->save(executor_, done_));
    }
    const bool write = config_.run.write_model && !in_.quiet();
    if (interrupted) say(fmt::format("interrupted: the step is finished{}", write ? ", saving the model" : ""));
    save_failed(saver_->finish());
    if (log_) log_->finish();
    if (write) save_weights(executor_, rank_.transport, config_.run.output + "/model", in_.source.config, as_read());
    if (log_) log_->say(log_->summary());
    return interrupted ? TrainEnd::interrupted : TrainEnd::finished;
  }

 private:
  SaveOptions as_read() const {
    return {.dtype = in_.source.dtype, .experts = experts_, .side_files_from = in_.source.folder ? in_.source.folder->path() : ""};
  }
  double most_bytes(const char* when) {    // of a rank
    return max_of_ranks(rank_, static_cast<double>(executor_.peak_bytes() + (evaluator_ ? evaluator_->executor().peak_bytes() : 0)), when);
  }
  bool stopped() const { return any_of_ranks(rank_, in_.stop.load(), "the end of a step"); }
  void say(const std::string& line) {
    if (log_) log_->say(line);
  }
  // A full disk does not end a run that may outlive it, unless the user wants that.
  void save_failed(const std::string& error) {
    if (error.empty()) return;
    if (config_.run.stop_on_save_error) user_error("checkpoint not written: {}", error);
    say("WARNING: checkpoint not written, the last complete one stays: " + error);
  }

  // The step's executor with its weights, and the evaluation's beside it.
  void build() {
    if (!in_.flags.dump_ir.empty() && rank_.is_first()) write_file_atomically(in_.flags.dump_ir + "/plan.txt", executor_.describe());
    if (in_.source.folder)
      experts_ = written_experts(load_weights(executor_, *in_.source.folder, in_.model.tied_head), in_.model.model_type);
    else
      init_weights(executor_, static_cast<std::uint64_t>(config_.run.seed));
    if (const RowSet* held_out = in_.held_out()) {
      Options placement;
      set_placement(placement, config_, in_.source.config, in_.model);
      evaluator_.emplace(in_.source.config, in_.where, *held_out,
                         EvaluatorOptions{.compute = in_.compute(),
                                          .device = in_.device,
                                          .deterministic = in_.deterministic(),
                                          .rows_at_once = config_.batch.micro * config_.parallel.dp,
                                          .cuda_graphs = config_.run.cuda_graphs != false,
                                          .beside = &executor_,
                                          .rank = rank_,
                                          .placement = placement});
    }
    flops_per_token_ = model_flops_per_token(in_.model, config_.data.seq_len) / static_cast<double>(config_.parallel.ranks);
    peak_flops_ = in_.quiet() || (rank_.transport && in_.device == DeviceKind::cpu) ? 0 : measured_matmul_rate(in_.device, in_.compute());
    if (in_.flags.profile > 0 && rank_.is_first()) rates_ = measured_rates(in_.device, in_.compute());
    peak_bytes_ = most_bytes("the start");
    return_freed_memory();
  }

  void announce(const std::vector<std::string>& banner, const std::string& checkpoints) {
    if (in_.flags.resume)
      log_->say(done_.step ? fmt::format("resumed after step {}", done_.step)
                           : fmt::format("--resume: no checkpoint in {}, starting afresh", checkpoints));
    for (const std::string& line : banner) log_->say(line);
    if (!in_.chosen.empty()) log_->say(in_.chosen);
    for (const std::string& line : in_.corpus->description(config_.run.steps * config_.batch.global)) log_->say(line);
    if (const std::string note = in_.source.folder ? left_out(*in_.source.folder) : ""; !note.empty()) log_->say(note);
    const Graph& graph = executor_.graph();
    std::int64_t parameters = 0;
    for (const Value v : graph.all(ValueKind::state))
      if (graph[v].attrs.has("trainable")) parameters += num_elements(graph.type(v).shape);
    log_->say(fmt::format(
        "{} with {} parameters on {} in {}; {} rows of {} tokens, {} a step ({} micro-batches of {}); {} planned: {} states and inputs, {} "
        "for a step",
        in_.model.model_type, human_count(static_cast<double>(parameters)), name(in_.device), name(in_.compute()),
        in_.corpus->rows().count(), config_.data.seq_len, config_.batch.global, config_.batch.accumulation, config_.batch.micro,
        human_bytes(static_cast<double>(executor_.planned_bytes())), human_bytes(static_cast<double>(executor_.memory().persistent_bytes)),
        human_bytes(static_cast<double>(executor_.memory().arena_bytes))));
    if (const std::string graphs = executor_.graphs(); !graphs.empty()) log_->say(graphs);
    for (const std::string& line : slow_calls(graph, executor_.rank(), in_.device, in_.deterministic())) log_->say(line);
    if (rank_.count > 1)
      for (const std::string& line : plan_summary(graph, executor_.memory())) log_->say(line);
    if (evaluator_) log_->say(fmt::format("held out: {} rows", evaluator_->rows().count()));
  }

  StepRecord step(RowBuffers& rows) {
    const auto begin = std::chrono::steady_clock::now();
    rows.fill(*batches_, done_.step, in_.flags.rows_reversed);
    rows.give(executor_);
    const Rates rate = rates(config_.scheduler, config_.optimizer, done_.committed);
    set_rates(executor_, config_, rate, done_.committed);
    executor_.time_calls(done_.step + 1 == in_.flags.profile);
    executor_.run_step();
    if (in_.model.moe && rank_.count > 1) peak_bytes_ = most_bytes("the end of a step");    // experts' rows are as they are routed
    StepRecord record;
    record.step = ++done_.step;
    record.loss = executor_.metric("loss"), record.grad_norm = executor_.metric("grad_norm");
    record.committed = executor_.metric("commit") != 0;
    done_.committed += record.committed;
    record.lr = rate.lr;
    record.tokens = static_cast<std::int64_t>(executor_.metric("tokens"));
    if (executor_.graph().find("metric.aux_loss")) record.aux_loss = executor_.metric("aux_loss");
    record.loads = expert_loads(executor_);
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    record.peak_bytes = static_cast<std::int64_t>(peak_bytes_);
    const auto all_tokens = static_cast<double>(config_.batch.global * config_.data.seq_len);
    record.peak_share = peak_flops_ > 0 ? flops_per_token_ * all_tokens / record.seconds / peak_flops_ : 0;
    return record;
  }

  // Nothing if the run is interrupted meanwhile.
  std::optional<EvalRecord> evaluate() {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    auto said = begin;
    bool stop = false;
    const Evaluation result = evaluator_->run(
        [&](const Evaluator::Batch& batch) {
          const auto now = Clock::now();
          if (now - said < std::chrono::seconds(30)) return;
          said = now;
          const std::int64_t done = batch.first_row + batch.rows, all = evaluator_->rows().count();
          const double seconds = std::chrono::duration<double>(now - begin).count();
          say(fmt::format("evaluation: {} of {} rows, eta {}", done, all,
                          human_time(seconds * static_cast<double>(all - done) / static_cast<double>(done))));
        },
        [&] { return stop = stopped(); });
    if (stop) return std::nullopt;
    return EvalRecord{
        .step = done_.step, .loss = result.loss, .perplexity = result.perplexity(), .tokens = result.tokens, .seconds = result.seconds};
  }

  const RunInputs& in_;
  const RunConfig& config_;
  Rank rank_;
  std::unique_ptr<Batches> batches_;
  Executor executor_;
  std::optional<Evaluator> evaluator_;
  std::optional<Saver> saver_;
  std::optional<RunLog> log_;                                     // rank 0
  Experts experts_ = experts_of(in_.model.model_type).front();    // in what is written
  Progress done_;
  std::int64_t resumed_at_ = 0;    // step of the checkpoint that the run began with
  DeviceRates rates_;              // rank 0, for --profile
  double flops_per_token_ = 0, peak_flops_ = 0, peak_bytes_ = 0;
};

}    // namespace

TrainEnd train(const LoadedConfig& loaded, const TrainFlags& flags, const Launch& launch, const std::atomic<bool>& stop) {
  const RunConfig& config = loaded.config;
  std::optional<RunInputs> shared;
  TrainEnd end = TrainEnd::finished;
  const RanksOptions ranks{
      .nproc = config.run.nproc, .timeout_s = config.run.timeout_s, .device = chosen_device(config.run.device), .threads = flags.threads};
  const int local_rank = std::max(0, launch.local_rank);
  const auto work = [&](const Rank& rank) {
    // Processes read for themselves; threads share what was read before they began.
    if (launch.size > 1) {
      shared.emplace(loaded, flags, stop, local_rank);
      expect_alike(rank, *shared);
    }
    Run run(*shared, rank, loaded.banner);
    const TrainEnd mine = run.go();
    if (rank.is_first()) end = mine;
  };
  if (launch.size == 1) shared.emplace(loaded, flags, stop, local_rank);
  run_ranks(launch, ranks, work);
  return end;
}

}    // namespace sheaf
