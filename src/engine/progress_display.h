#pragma once
// What a person sees of a running step loop on a terminal: a few lines that are redrawn in place. The cursor always rests below them and
// is never hidden: whatever ends the program, the terminal is in order and the last numbers stand.
#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

namespace sheaf {

struct ProgressState {
  std::int64_t step = 0, num_steps = 0;
  double eta_seconds = 0;
  std::deque<double> losses, norms;    // the newest last; what is not finite shows as a gap in the trend
  double lr = 0, tokens_per_s = 0, step_seconds = 0;
  double peak_share = 0;    // 0: unknown
  std::int64_t peak_bytes = 0;
  std::int64_t last_checkpoint = 0;    // its step; 0: none
  struct Evaluation {
    std::int64_t step = 0;
    double loss = 0, perplexity = 0, best = 0;
  };
  std::optional<Evaluation> evaluation;
};

struct TerminalSize {
  int columns = 80, rows = 24;
  bool utf8 = true;
};

// No line is wider than the terminal; a narrow or flat one gets fewer of them, at least one.
std::vector<std::string> progress_lines(const ProgressState& state, const TerminalSize& size);

class ProgressDisplay {
 public:
  // Redraws, at most ten times a second unless `now`.
  void show(const ProgressState& state, bool now = false);
  // Takes the lines away, for something else to be printed in their place.
  void clear();
  // Leaves them on the screen for good: what comes is printed below.
  void leave() { widths_.clear(); }
  // False where lines cannot be redrawn: standard output is no terminal, or a dumb one.
  static bool possible();

 private:
  std::vector<int> widths_;    // columns of the lines on the screen
  std::chrono::steady_clock::time_point drawn_{};
  std::string up(int columns) const;
};

}    // namespace sheaf
