#pragma once
// What a person sees of long work that is no training, on stderr, so that stdout is the result alone: one line that is rewritten.
#include <chrono>
#include <string>
#include <utility>

#include "data/tokenize.h"

namespace sheaf {

class ProgressLine {
 public:
  enum class AtEnd { stays, goes };    // the last line on a terminal
  enum class InPipe { every_10_s, nothing };
  explicit ProgressLine(AtEnd at_end, InPipe in_pipe = InPipe::every_10_s);
  ~ProgressLine();    // leaves the cursor on a fresh line
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  bool due() const;                      // cheap: asked before a text is made; five times a second on a terminal
  void show(const std::string& text);    // now
  void clear();                          // for something else to be printed in its place
  double seconds() const;                // since the start

 private:
  using Clock = std::chrono::steady_clock;
  AtEnd at_end_;
  InPipe in_pipe_;
  bool terminal_, open_ = false;
  Clock::time_point begin_ = Clock::now(), shown_ = begin_;
};

class TokenizeLine {
 public:
  explicit TokenizeLine(std::string path) : path_(std::move(path)) {}
  void show(const TextProgress& progress);    // cheap where no line is due

 private:
  std::string path_;
  ProgressLine line_{ProgressLine::AtEnd::stays};
};

// "3 documents, 1.2M tokens, 400.0k of them count for the loss"
std::string token_counts(const TextProgress& progress);

}    // namespace sheaf
