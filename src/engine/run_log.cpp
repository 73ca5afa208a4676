#include "engine/run_log.h"

#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace sheaf {

// What a run wrote after its last checkpoint will be written again. A line cut off by a kill is beyond it, too.
static void cut_metrics(const std::string& path, std::int64_t done) {
  if (::access(path.c_str(), F_OK) != 0) return;
  const std::string text = read_file(path);
  std::string kept;
  for (const std::string& line : split(text, '\n')) {
    const nlohmann::json record = nlohmann::json::parse(line, nullptr, false);
    if (!record.is_object() || !record.contains("step") || record["step"].get<std::int64_t>() > done) break;
    kept += line + "\n";
  }
  write_file_atomically(path, kept);
}

RunLog::RunLog(const std::string& folder, std::int64_t num_steps, std::int64_t log_every, std::int64_t done)
    : folder_(folder), num_steps_(num_steps), log_every_(log_every), terminal_(::isatty(STDOUT_FILENO) == 1) {
  const std::string path = folder + "/metrics.jsonl";
  cut_metrics(path, done);
  metrics_ = std::fopen(path.c_str(), "ae");
  if (!metrics_) user_error("{}: cannot be written: {}", path, std::strerror(errno));
}
RunLog::~RunLog() {
  if (line_open_) std::printf("\n");
  std::fflush(stdout);
  std::fclose(metrics_);
}

void RunLog::add(const StepRecord& r) {
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
  const std::string text = line.dump() + "\n";
  if (std::fwrite(text.data(), 1, text.size(), metrics_) != text.size() || std::fflush(metrics_) != 0)
    user_error("{}/metrics.jsonl: cannot be written: {}", folder_, std::strerror(errno));

  if (steps_ == 0) first_loss_ = r.loss;
  ++steps_, tokens_ += r.tokens, elapsed_ += r.seconds, held_ += !r.committed;
  if (r.committed) last_loss_ = r.loss;
  recent_seconds_ = steps_ <= 2 ? r.seconds : 0.9 * recent_seconds_ + 0.1 * r.seconds;
  const bool due = r.step % log_every_ == 0 || r.step == num_steps_ || steps_ == 1 || !r.committed;
  if (!due && !terminal_) return;
  std::string shown =
      fmt::format("step {:>{}}/{}  loss {:.4f}  norm {:.3f}  lr {:.2e}  {:.0f} ms  {} tokens/s", r.step, std::to_string(num_steps_).size(),
                  num_steps_, r.loss, r.grad_norm, r.lr, r.seconds * 1e3, human_count(static_cast<double>(r.tokens) / r.seconds));
  if (r.peak_share > 0) shown += fmt::format("  {:.0f} % of peak", 100 * r.peak_share);
  shown += fmt::format("  eta {}", human_time(static_cast<double>(num_steps_ - r.step) * recent_seconds_));
  if (!r.committed) shown += "  NOT COMMITTED: loss or gradient norm is not finite";
  if (terminal_ && !due) {
    std::printf("\r%s\033[K", shown.c_str());
    line_open_ = true;
  } else {
    std::printf("%s%s%s\n", terminal_ ? "\r" : "", shown.c_str(), terminal_ ? "\033[K" : "");
    line_open_ = false;
  }
  std::fflush(stdout);
}

void RunLog::say(const std::string& line) {
  if (line_open_) std::printf("\n");
  line_open_ = false;
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

std::string RunLog::summary() const {
  std::string text =
      fmt::format("{} steps, {} tokens in {}: {} tokens/s; loss {:.4f} -> {:.4f}", steps_, human_count(static_cast<double>(tokens_)),
                  human_time(elapsed_), human_count(static_cast<double>(tokens_) / std::max(elapsed_, 1e-9)), first_loss_, last_loss_);
  if (held_) text += fmt::format("; {} not committed", held_ == 1 ? "1 step was" : fmt::format("{} steps were", held_));
  return text;
}

}    // namespace sheaf
