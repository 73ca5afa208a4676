#pragma once
// What a person sees while text is tokenized: one line that is rewritten on a terminal, a line every ten seconds in a pipe.
#include <chrono>
#include <string>

#include "data/tokenize.h"

namespace sheaf {

class TokenizeLine {
 public:
  explicit TokenizeLine(std::string path);
  ~TokenizeLine();    // leaves the cursor on a line of its own
  TokenizeLine(const TokenizeLine&) = delete;
  TokenizeLine& operator=(const TokenizeLine&) = delete;

  void show(const TextProgress& progress);    // cheap where no line is due

 private:
  using Clock = std::chrono::steady_clock;
  std::string path_;
  bool terminal_, open_ = false;
  Clock::time_point begin_ = Clock::now(), shown_ = Clock::now();
};

// "3 documents, 1.2M tokens, 400.0k of them count for the loss"
std::string token_counts(const TextProgress& progress);

}    // namespace sheaf
