#include "engine/bench/convergence.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "engine/bench/bench_progress.h"
#include "engine/bench/device_text.h"
#include "engine/corpus.h"
#include "engine/plan_report.h"
#include "engine/step_graph.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kBatch = 8, kMicroBatches = 2;    // 4 rows: one for each of dp 4
constexpr double kRate = 2e-3;
constexpr std::int64_t kWarmup = 20;

struct Case {
  const char* id;
  const char* name;
  std::int64_t ranks;
  const char* mesh;
  bool rows_reversed = false;
};
constexpr Case kCases[] = {{"one_rank", "one rank", 1, "dp"},
                           {"other_order", "one rank, other order", 1, "dp", true},
                           {"ep", "EP", 4, "ep4"},
                           {"ep_tp", "EP + TP", 4, "ep4+tp2"},
                           {"ep_sp", "EP + SP", 4, "ep4+sp2"},
                           {"ep_zero3", "EP + ZeRO-3", 4, "ep2+zero3"},
                           {"full", "full folding", 8, "sp2+tp2+ep2+etp2+zero3"}};

Json config_of(const TinyModel& model) {
  Json config = {{"model_type", model.family}};
  config.update(parse_json(kTinyDefaults, "the tiny models' defaults"));
  const Json own = parse_json(model.config, fmt::format("the tiny {} model", model.family));
  for (const auto& [key, value] : own.items()) value.is_null() ? void(config.erase(key)) : void(config[key] = value);
  return config;
}

Json run_file(const ConvergenceOptions& options, const Json& config, double balance_rate, const std::string& tokens) {
  Json run = {{"model", {{"config", config}}},
              {"data", {{"train", options.data}, {"seq_len", options.seq_len}, {"tokenizer", "bytes"}, {"cache", tokens}}},
              {"run", {{"steps", options.steps}, {"seed", 1}}},
              {"train_batch_size", kBatch},
              {"gradient_accumulation_steps", kMicroBatches},
              {"gradient_clipping", 1.0},
              {"optimizer", {{"type", "AdamW"}, {"params", {{"lr", kRate}, {"betas", {0.9, 0.95}}, {"weight_decay", 0.1}}}}},
              {"scheduler",
               {{"type", "WarmupLR"}, {"params", {{"warmup_max_lr", kRate}, {"warmup_num_steps", kWarmup}, {"warmup_type", "linear"}}}}}};
  if (!options.device.empty()) run["run"]["device"] = options.device;
  if (balance_rate > 0) run["expert_parallel"]["load_balance_coeff"] = balance_rate;
  return run;
}

std::int64_t num_parameters(const Json& run, const Json& config) {
  const RunConfig parsed = parse_config(run.dump(), "the run").config;
  std::int64_t sum = 0;
  for (const ParameterRow& row : parameter_rows(training_step(parsed, config, parse_model_config(config), {}).graph))
    sum += num_elements(row.shape);
  return sum;
}

// What the run wrote of itself.
std::vector<LoadPoint> read_load(const std::string& folder) {
  std::vector<LoadPoint> out;
  std::error_code ignored;
  if (!fs::exists(folder + "/metrics.jsonl", ignored)) return out;
  for (const std::string& line : split(read_file(folder + "/metrics.jsonl"), '\n')) {
    const Json record = Json::parse(line, nullptr, false);
    if (!record.is_object() || !record.contains("load") || !record["load"].is_array() || record["load"].empty()) continue;
    LoadPoint worst;
    for (const Json& layer : record["load"]) {
      worst.max_over_mean = std::max(worst.max_over_mean, layer.value("max_over_mean", 0.0));
      worst.entropy = std::min(worst.entropy, layer.value("entropy", 1.0));
      worst.dead += layer.value("dead", 0.0);
    }
    out.push_back(worst);
  }
  return out;
}

std::vector<double> relative_differences(const std::vector<double>& found, const std::vector<double>& expected) {
  std::vector<double> out;
  for (std::size_t i = 0; i < std::min(found.size(), expected.size()); ++i)
    out.push_back(std::abs(found[i] - expected[i]) / std::abs(expected[i]));
  return out;
}

// NaN, where there is one: it is within no tolerance.
double largest(const std::vector<double>& numbers, std::size_t begin, std::size_t end) {
  double most = 0;
  for (std::size_t i = begin; i < std::min(end, numbers.size()); ++i)
    most = std::isnan(numbers[i]) || std::isnan(most) ? NAN : std::max(most, numbers[i]);
  return most;
}

void compare(ConvergenceRun& run, const ConvergenceRun& expected) {
  run.loss_difference = relative_differences(run.loss, expected.loss);
  run.norm_difference = relative_differences(run.grad_norm, expected.grad_norm);
  constexpr auto kFirst = static_cast<std::size_t>(kFirstUpdates), kAll = std::numeric_limits<std::size_t>::max();
  run.first_loss = largest(run.loss_difference, 0, kFirst), run.later_loss = largest(run.loss_difference, kFirst, kAll);
  run.first_norm = largest(run.norm_difference, 0, kFirst), run.later_norm = largest(run.norm_difference, kFirst, kAll);
  for (std::size_t i = 0; i < std::min(run.load.size(), expected.load.size()) && run.other_load_at == 0; ++i)
    if (run.load[i] != expected.load[i]) run.other_load_at = static_cast<std::int64_t>(i) + 1;
  run.compared = run.mesh.ranks > 1 && run.run.end == RunEnd::finished && expected.run.end == RunEnd::finished;
  run.passed = run.compared && run.first_loss <= kTolerance && run.first_norm <= kTolerance;
}

class Convergence {
 public:
  Convergence(const ConvergenceOptions& options, const std::atomic<bool>& stop)
      : options_(options),
        stop_(stop),
        tokens_(options.output + "/.tokens"),
        progress_(static_cast<double>(options.models.size()) * work_of_family()) {
    result_.options = options, result_.batch = kBatch, result_.micro_batches = kMicroBatches;
    result_.device = device_text(options.device);
    read_corpus();
  }

  ConvergenceResult go(const std::function<void(const ConvergenceResult&)>& each) {
    for (const TinyModel& model : options_.models) {
      if (stop_) break;
      train_family(model);
      progress_.clear();
      each(result_);
    }
    result_.interrupted = stop_;
    return result_;
  }

 private:
  // On models so small what a rank does beside its share of the sums is nearly all.
  static double work_of(const Case& c) { return static_cast<double>(c.ranks); }
  static double work_of_family() {
    double sum = 0;
    for (const Case& c : kCases) sum += work_of(c);
    return sum;
  }

  // Tokenized once for all; and what is wrong with it is said before anything is trained.
  void read_corpus() {
    const Corpus corpus(
        {{options_.data}},
        {.seq_len = options_.seq_len, .tokenizer = "bytes", .vocab = 256, .end_of_text = 0, .cache = tokens_.path(), .stop = &stop_});
    corpus.batches(kBatch, true, 1);
    result_.rows = corpus.rows().count(), result_.tokens = corpus.identity()[0]["tokens"].get<std::int64_t>();
  }

  void train_family(const TinyModel& model) {
    const Json config = config_of(model);
    const Json run = run_file(options_, config, model.balance_rate, tokens_.path());
    result_.families.push_back({.model = model, .config = config, .parameters = num_parameters(run, config)});
    ConvergenceFamily& family = result_.families.back();
    const std::int64_t experts = parse_model_config(config).moe->experts;
    for (const Case& c : kCases) {
      if (stop_) break;
      family.runs.push_back(train_once(model.family, run, c, mesh_of(parse_mesh_words(c.mesh), c.ranks, experts)));
      compare(family.runs.back(), family.runs.front());
    }
  }

  ConvergenceRun train_once(const std::string& family, Json run, const Case& c, const BenchMesh& mesh) {
    ConvergenceRun out{.id = c.id, .name = c.name, .mesh = mesh, .rows_reversed = c.rows_reversed};
    set_mesh(run, mesh);
    const std::string folder = fmt::format("{}/runs/{}/{}", options_.output, family, c.id);
    run["run"]["output"] = folder;
    progress_.begin(fmt::format("{}, {}", family, c.name), work_of(c));
    // One thread a rank: of models so small several are slower, and the same number everywhere gives the same bits everywhere.
    const TrainFlags flags{.watch =
                               [&](const StepRecord& r) {
                                 out.loss.push_back(r.committed && std::isfinite(r.loss) ? r.loss : NAN);
                                 out.grad_norm.push_back(std::isfinite(r.grad_norm) ? r.grad_norm : NAN);
                                 progress_.step(r.step, options_.steps, fmt::format("loss {:.4f}", r.loss));
                               },
                           .threads = 1,
                           .rows_reversed = c.rows_reversed};
    out.run = run_quietly(run, flags, stop_);
    out.load = read_load(folder);
    progress_.end();
    return out;
  }

  const ConvergenceOptions& options_;
  const std::atomic<bool>& stop_;
  TemporaryFolder tokens_;
  BenchProgress progress_;
  ConvergenceResult result_;
};

}    // namespace

std::int64_t ConvergenceResult::num_compared() const {
  std::int64_t n = 0;
  for (const ConvergenceFamily& family : families)
    n += std::count_if(family.runs.begin(), family.runs.end(), [](const auto& r) { return r.compared; });
  return n;
}
std::int64_t ConvergenceResult::num_passed() const {
  std::int64_t n = 0;
  for (const ConvergenceFamily& family : families)
    n += std::count_if(family.runs.begin(), family.runs.end(), [](const auto& r) { return r.passed; });
  return n;
}
bool ConvergenceResult::passed() const {
  for (const ConvergenceFamily& family : families)
    for (const ConvergenceRun& run : family.runs)
      if (run.run.end == RunEnd::failed) return false;
  return num_passed() == num_compared();
}

ConvergenceResult run_convergence(const ConvergenceOptions& options, const std::atomic<bool>& stop,
                                  const std::function<void(const ConvergenceResult&)>& each) {
  return Convergence(options, stop).go(each);
}

}    // namespace sheaf
