#include "engine/run_log.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "checkpoint/checkpoint.h"

namespace sheaf {
namespace {

constexpr std::size_t kTrend = 40;    // updates

Json json_of(const StepRecord& r) {
  Json line;
  line["step"] = r.step;
  line["loss"] = std::isfinite(r.loss) && r.committed ? Json(r.loss) : Json(nullptr);
  line["grad_norm"] = std::isfinite(r.grad_norm) ? Json(r.grad_norm) : Json(nullptr);
  line["lr"] = r.lr;
  line["tokens"] = r.tokens;
  line["step_ms"] = r.seconds * 1e3;
  line["tokens_per_s"] = static_cast<double>(r.tokens) / r.seconds;
  line["peak_bytes"] = r.peak_bytes;
  if (!r.committed) line["committed"] = false;
  if (r.aux_loss) line["aux_loss"] = std::isfinite(*r.aux_loss) ? Json(*r.aux_loss) : Json(nullptr);
  if (!r.loads.empty()) line["load"] = json_of(r.loads);
  if (r.evaluation) {
    line["eval_loss"] = std::isfinite(r.evaluation->loss) ? Json(r.evaluation->loss) : Json(nullptr);
    line["eval_perplexity"] = std::isfinite(r.evaluation->perplexity) ? Json(r.evaluation->perplexity) : Json(nullptr);
  }
  return line;
}

// Every number of the line but its step; true and false are 1 and 0; of the layers' loads the worst.
std::vector<std::pair<std::string, double>> scalars(const Json& line) {
  std::vector<std::pair<std::string, double>> out;
  for (const auto& [key, value] : line.items())
    if (key != "step" && (value.is_number() || value.is_boolean()))
      out.emplace_back(key, value.is_boolean() ? (value.get<bool>() ? 1.0 : 0.0) : value.get<double>());
  if (const auto load = line.find("load"); load != line.end()) {
    double max_over_mean = 0, entropy = 1, dead = 0;
    for (const Json& layer : *load) {
      max_over_mean = std::max(max_over_mean, layer["max_over_mean"].get<double>());
      entropy = std::min(entropy, layer["entropy"].get<double>());
      dead += layer["dead"].get<double>();
    }
    out.insert(out.end(), {{"load/max_over_mean", max_over_mean}, {"load/entropy", entropy}, {"load/dead", dead}});
  }
  return out;
}

}    // namespace

// What a run wrote after its last checkpoint will be written again. A line cut off by a kill is beyond it, too. The lines that stay tell
// the first loss and the best evaluation of the whole run.
void RunLog::cut_metrics(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0) return;
  std::string kept;
  for (const std::string& line : split(read_file(path), '\n')) {
    const nlohmann::json record = nlohmann::json::parse(line, nullptr, false);
    if (!record.is_object() || !record.contains("step") || !record["step"].is_number_integer()) break;
    const auto step = record["step"].get<std::int64_t>();
    if (step > options_.done) break;
    kept += line + "\n";
    if (!first_loss_ && record.contains("loss") && record["loss"].is_number()) first_loss_ = record["loss"].get<double>();
    if (record.contains("eval_loss") && record["eval_loss"].is_number() && (!best_ || record["eval_loss"].get<double>() < best_->loss)) {
      const auto loss = record["eval_loss"].get<double>();
      best_ = {.step = step, .loss = loss, .perplexity = std::exp(loss)};
    }
  }
  write_file_atomically(path, kept);
}

RunLog::RunLog(const std::string& folder, const RunLogOptions& options)
    : folder_(folder), options_(options), on_terminal_(!options.quiet && ProgressDisplay::possible()) {
  const std::string path = folder + "/metrics.jsonl";
  cut_metrics(path);
  metrics_.emplace(path);
  events_.emplace(folder + "/tensorboard", options.done + 1);
}

// An error is on its way: the last state stays, the message comes below it.
RunLog::~RunLog() { std::fflush(stdout); }

void RunLog::write_failed(const std::string& error) {
  if (error.empty()) {
    if (!write_error_.empty()) say("metrics are written again: nothing is missing");
  } else {
    if (options_.stop_on_write_error) user_error("{}", error);
    if (write_error_.empty()) say(fmt::format("WARNING: {}; the run goes on, what is not written waits in memory", error));
  }
  write_error_ = error;
}

void RunLog::write(const StepRecord& record) {
  const Json line = json_of(record);
  const std::string metrics = metrics_->append(line.dump() + "\n");
  const std::string events = events_->add(record.step, scalars(line));
  const auto failed = [](const std::string& path, const std::string& why) { return fmt::format("{}: cannot be written: {}", path, why); };
  write_failed(!metrics.empty() ? failed(metrics_->path(), metrics) : !events.empty() ? failed(events_->path(), events) : "");
}

std::string RunLog::step_line(const StepRecord& r) const {
  std::string text = fmt::format("step {:>{}}/{}  loss {:.4f}  norm {:.3f}  lr {:.2e}  {:.0f} ms  {} tokens/s", r.step,
                                 std::to_string(options_.num_steps).size(), options_.num_steps, r.loss, r.grad_norm, r.lr, r.seconds * 1e3,
                                 human_count(static_cast<double>(r.tokens) / r.seconds));
  if (r.peak_share > 0) text += fmt::format("  {:.0f} % of peak", 100 * r.peak_share);
  text += fmt::format("  eta {}", human_time(static_cast<double>(options_.num_steps - r.step) * recent_seconds_));
  if (r.evaluation) text += fmt::format("  evaluation: loss {:.4f} perplexity {:.2f}", r.evaluation->loss, r.evaluation->perplexity);
  if (!r.committed) text += "  NOT COMMITTED: loss or gradient norm is not finite";
  return text;
}

void RunLog::add(const StepRecord& r) {
  if (!first_loss_) first_loss_ = r.loss;
  ++steps_, tokens_ += r.tokens, elapsed_ += r.seconds, held_ += !r.committed;
  if (r.committed) last_loss_ = r.loss;
  recent_seconds_ = steps_ <= 2 ? r.seconds : 0.9 * recent_seconds_ + 0.1 * r.seconds;
  if (r.evaluation && std::isfinite(r.evaluation->loss) && (!best_ || r.evaluation->loss < best_->loss)) best_ = r.evaluation;

  state_.step = r.step, state_.num_steps = options_.num_steps;
  state_.eta_seconds = static_cast<double>(options_.num_steps - r.step) * recent_seconds_;
  for (const auto& [numbers, value] : {std::pair(&state_.losses, r.loss), std::pair(&state_.norms, r.grad_norm)}) {
    numbers->push_back(value);
    if (numbers->size() > kTrend) numbers->pop_front();
  }
  state_.lr = r.lr, state_.tokens_per_s = static_cast<double>(r.tokens) / r.seconds, state_.step_seconds = r.seconds;
  state_.peak_share = r.peak_share, state_.peak_bytes = r.peak_bytes, state_.last_checkpoint = r.last_checkpoint;
  if (r.evaluation) state_.evaluation = {r.step, r.evaluation->loss, r.evaluation->perplexity, best_ ? best_->loss : r.evaluation->loss};

  write(r);
  const bool first_or_last = steps_ == 1 || r.step == options_.num_steps;
  // On a terminal the display has every update; lines that stay are for those who asked for some of them.
  const bool due = on_terminal_ ? options_.log_every > 1 && (r.step % options_.log_every == 0 || first_or_last)
                                : r.step % options_.log_every == 0 || first_or_last;
  if (due || !r.committed || (r.evaluation && !on_terminal_)) say(step_line(r));
  if (on_terminal_) display_.show(state_, first_or_last);
}

void RunLog::say(const std::string& line) {
  if (options_.quiet) return;
  display_.clear();
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
  if (on_terminal_ && steps_ > 0) display_.show(state_, true);
}

void RunLog::finish() {
  if (on_terminal_ && steps_ > 0) display_.show(state_, true);
  display_.leave();
  on_terminal_ = false;
  const std::string metrics = metrics_->append({}), events = events_->flush();
  if (!metrics.empty()) user_error("{}: the last lines could not be written: {}", metrics_->path(), metrics);
  if (!events.empty()) user_error("{}: the last records could not be written: {}", events_->path(), events);
}

std::string RunLog::summary() const {
  std::string text = fmt::format("{} steps, {} tokens in {}: {} tokens/s; loss {:.4f} -> {:.4f}", steps_,
                                 human_count(static_cast<double>(tokens_)), human_time(elapsed_),
                                 human_count(static_cast<double>(tokens_) / std::max(elapsed_, 1e-9)), first_loss_.value_or(0), last_loss_);
  if (held_) text += fmt::format("; {} not committed", held_ == 1 ? "1 step was" : fmt::format("{} steps were", held_));
  if (best_)
    text += fmt::format("\nbest evaluation: loss {:.4f}, perplexity {:.2f}, at step {}", best_->loss, best_->perplexity, best_->step);
  std::vector<std::vector<std::string>> rows = {{"peak memory:", human_bytes(static_cast<double>(state_.peak_bytes))},
                                                {"metrics:", folder_ + "/metrics.jsonl"},
                                                {"tensorboard:", folder_ + "/tensorboard"}};
  if (std::filesystem::exists(folder_ + "/model")) rows.insert(rows.begin() + 1, {"model:", folder_ + "/model"});
  if (const auto found = list_checkpoints(folder_ + "/checkpoints"); !found.empty())
    rows.push_back({"checkpoints:", fmt::format("{} (newest of {})", found.back().folder, found.size())});
  text += "\n" + table(rows);
  text.pop_back();    // the last newline
  return text;
}

}    // namespace sheaf
