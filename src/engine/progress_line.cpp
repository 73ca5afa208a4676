#include "engine/progress_line.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/text.h"

namespace sheaf {

TokenizeLine::TokenizeLine(std::string path) : path_(std::move(path)), terminal_(::isatty(STDOUT_FILENO) == 1) {}
TokenizeLine::~TokenizeLine() {
  if (open_) std::printf("\n");
  std::fflush(stdout);
}

void TokenizeLine::show(const TextProgress& p) {
  const auto now = Clock::now();
  if (now - shown_ < (terminal_ ? std::chrono::milliseconds(200) : std::chrono::seconds(10))) return;
  shown_ = now;
  const double seconds = std::max(std::chrono::duration<double>(now - begin_).count(), 1e-9);
  const double rate = static_cast<double>(p.bytes) / seconds, left = static_cast<double>(p.all_bytes - p.bytes);
  std::printf("%s%s  %.0f %% of %s  %s tokens  %s/s  eta %s%s", terminal_ ? "\r" : "", path_.c_str(),
              100.0 * static_cast<double>(p.bytes) / static_cast<double>(std::max<std::int64_t>(p.all_bytes, 1)),
              human_bytes(static_cast<double>(p.all_bytes)).c_str(), human_count(static_cast<double>(p.tokens)).c_str(),
              human_bytes(rate).c_str(), human_time(rate > 0 ? left / rate : -1).c_str(), terminal_ ? "\033[K" : "\n");
  open_ = terminal_;
  std::fflush(stdout);
}

std::string token_counts(const TextProgress& p) {
  std::string text = fmt::format("{} documents, {} tokens", p.documents, human_count(static_cast<double>(p.tokens)));
  if (p.counted < p.tokens) text += fmt::format(", {} of them count for the loss", human_count(static_cast<double>(p.counted)));
  return text;
}

}    // namespace sheaf
