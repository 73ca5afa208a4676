#include "engine/progress_display.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "base/text.h"

namespace sheaf {
namespace {

// Columns of a text whose characters are all one wide: bytes that do not continue a UTF-8 sequence.
int columns_of(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string cut(const std::string& text, int columns) {
  int seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80 && seen++ == columns) return text.substr(0, i);
  return text;
}

std::string bar(double share, int columns, bool utf8) {
  const int full = static_cast<int>(std::clamp(share, 0.0, 1.0) * columns);
  std::string out;
  for (int i = 0; i < columns; ++i) out += i < full ? (utf8 ? "█" : "#") : (utf8 ? "░" : ".");
  return out;
}

// The last numbers between their smallest and largest, eight heights.
std::string trend(const std::deque<double>& numbers, int columns, bool utf8) {
  constexpr const char* kHeights[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  constexpr const char* kAscii[] = {"_", "_", ".", ".", "-", "-", "'", "'"};
  const std::size_t count = std::min(numbers.size(), static_cast<std::size_t>(std::max(columns, 0)));
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (std::size_t i = numbers.size() - count; i < numbers.size(); ++i)
    if (std::isfinite(numbers[i])) low = std::min(low, numbers[i]), high = std::max(high, numbers[i]);
  std::string out;
  for (std::size_t i = numbers.size() - count; i < numbers.size(); ++i) {
    const double height = high > low ? (numbers[i] - low) / (high - low) * 7.99 : 0;
    out += !std::isfinite(numbers[i]) ? " " : (utf8 ? kHeights : kAscii)[static_cast<int>(height)];
  }
  return out;
}

TerminalSize terminal_size() {
  TerminalSize size;
  winsize window{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 && window.ws_row > 0)
    size.columns = window.ws_col, size.rows = window.ws_row;
  size.utf8 = false;
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"})    // the first that is set decides
    if (const char* value = std::getenv(name); value && *value) {
      size.utf8 = std::strstr(value, "UTF-8") || std::strstr(value, "utf8") || std::strstr(value, "utf-8");
      break;
    }
  return size;
}

}    // namespace

std::vector<std::string> progress_lines(const ProgressState& s, const TerminalSize& size) {
  const int width = std::max(size.columns - 1, 1);    // the last column would wrap on some terminals
  const double share = s.num_steps > 0 ? static_cast<double>(s.step) / static_cast<double>(s.num_steps) : 0;
  const double loss = s.losses.empty() ? 0 : s.losses.back(), norm = s.norms.empty() ? 0 : s.norms.back();
  const std::string count = fmt::format("step {:>{}}/{}", s.step, std::to_string(s.num_steps).size(), s.num_steps);
  const std::string eta = "eta " + human_time(s.eta_seconds);
  constexpr int kLines = 5;
  if (width < 40 || size.rows < kLines + 3) return {cut(fmt::format("{}  loss {:.4f}  {}", count, loss, eta), width)};

  const int room = width - columns_of(count) - columns_of(eta) - 10;
  const int trend_columns = std::clamp(width - 30, 0, 40);
  std::vector<std::string> lines = {
      fmt::format("{}  {}  {:3.0f} %  {}", count, bar(share, std::clamp(room, 5, 50), size.utf8), 100 * share, eta),
      fmt::format("  loss       {:<12.4f}{}", loss, trend(s.losses, trend_columns, size.utf8)),
      fmt::format("  grad norm  {:<12.3f}{}", norm, trend(s.norms, trend_columns, size.utf8))};
  std::string speed = fmt::format("  {} tokens/s", human_count(s.tokens_per_s));
  if (s.peak_share > 0) speed += fmt::format(" ({:.0f} % of peak)", 100 * s.peak_share);
  speed +=
      fmt::format("  {:.0f} ms a step  lr {:.2e}  memory {}", s.step_seconds * 1e3, s.lr, human_bytes(static_cast<double>(s.peak_bytes)));
  lines.push_back(speed);
  std::string last = s.last_checkpoint ? fmt::format("  checkpoint at step {}", s.last_checkpoint) : "  no checkpoint yet";
  if (s.evaluation)
    last += fmt::format("  evaluation at step {}: loss {:.4f}, perplexity {:.2f}, best {:.4f}", s.evaluation->step, s.evaluation->loss,
                        s.evaluation->perplexity, s.evaluation->best);
  lines.push_back(last);
  for (std::string& line : lines) line = cut(line, width);
  return lines;
}

bool ProgressDisplay::possible() {
  const char* kind = std::getenv("TERM");
  // mpirun gives its ranks a terminal of no size, which may well be a file in the end.
  winsize window{};
  const bool screen = ::isatty(STDOUT_FILENO) == 1 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
  return screen && kind && *kind && std::strcmp(kind, "dumb") != 0;
}

// To the first line on the screen. A terminal that became narrower has wrapped them.
std::string ProgressDisplay::up(int columns) const {
  int rows = 0;
  for (const int width : widths_) rows += std::max(1, (width + columns - 1) / columns);
  return rows == 0 ? "\r" : fmt::format("\r\033[{}A", rows);
}

void ProgressDisplay::show(const ProgressState& state, bool now) {
  const auto time = std::chrono::steady_clock::now();
  if (!now && time - drawn_ < std::chrono::milliseconds(100)) return;
  drawn_ = time;
  const TerminalSize size = terminal_size();
  const std::vector<std::string> lines = progress_lines(state, size);
  std::string out = up(size.columns);
  widths_.clear();
  for (const std::string& line : lines) {
    out += line + "\033[K\n";
    widths_.push_back(columns_of(line));
  }
  out += "\033[J";    // what was below: an echoed ^C, lines of a larger display
  std::fwrite(out.data(), 1, out.size(), stdout);
  std::fflush(stdout);
}

void ProgressDisplay::clear() {
  if (widths_.empty()) return;
  const std::string out = up(terminal_size().columns) + "\033[J";
  widths_.clear();
  std::fwrite(out.data(), 1, out.size(), stdout);
  std::fflush(stdout);
}

}    // namespace sheaf
