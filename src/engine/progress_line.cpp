#include "engine/progress_line.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/text.h"

namespace sheaf {

ProgressLine::ProgressLine(AtEnd at_end, InPipe in_pipe) : at_end_(at_end), in_pipe_(in_pipe), terminal_(::isatty(STDERR_FILENO) == 1) {}
ProgressLine::~ProgressLine() {
  if (open_) std::fputs(at_end_ == AtEnd::stays ? "\n" : "\r\033[K", stderr);
  std::fflush(stderr);
}

bool ProgressLine::due() const {
  if (!terminal_ && in_pipe_ == InPipe::nothing) return false;
  return Clock::now() - shown_ >= (terminal_ ? std::chrono::milliseconds(200) : std::chrono::seconds(10));
}

void ProgressLine::show(const std::string& text) {
  shown_ = Clock::now();
  open_ = terminal_;
  std::fprintf(stderr, terminal_ ? "\r%s\033[K" : "%s\n", text.c_str());
  std::fflush(stderr);
}

void ProgressLine::clear() {
  if (!open_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  open_ = false;
}

double ProgressLine::seconds() const { return std::max(std::chrono::duration<double>(Clock::now() - begin_).count(), 1e-9); }

void TokenizeLine::show(const TextProgress& p) {
  if (!line_.due()) return;
  const double rate = static_cast<double>(p.bytes) / line_.seconds(), left = static_cast<double>(p.all_bytes - p.bytes);
  line_.show(fmt::format("{}  {:.0f} % of {}  {} tokens  {}/s  eta {}", path_,
                         100.0 * static_cast<double>(p.bytes) / static_cast<double>(std::max<std::int64_t>(p.all_bytes, 1)),
                         human_bytes(static_cast<double>(p.all_bytes)), human_count(static_cast<double>(p.tokens)), human_bytes(rate),
                         human_time(rate > 0 ? left / rate : -1)));
}

std::string token_counts(const TextProgress& p) {
  std::string text = fmt::format("{} documents, {} tokens", p.documents, human_count(static_cast<double>(p.tokens)));
  if (p.counted < p.tokens) text += fmt::format(", {} of them count for the loss", human_count(static_cast<double>(p.counted)));
  return text;
}

}    // namespace sheaf
