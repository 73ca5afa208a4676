#include "engine/bench/bench_progress.h"

#include "base/text.h"

namespace sheaf {

void BenchProgress::say(const std::string& doing) {
  if (line_.due()) line_.show(fmt::format("{}: {}", what_, doing));
}

void BenchProgress::step(std::int64_t step, std::int64_t steps, const std::string& more) {
  if (!line_.due()) return;
  const double share = (done_ + work_ * static_cast<double>(step) / static_cast<double>(steps)) / all_;
  const std::string eta = share > 0.01 ? human_time(line_.seconds() * (1 / share - 1)) : "not known yet";
  line_.show(fmt::format("{}: step {}/{}  {}  {:.0f} % of all  eta {}", what_, step, steps, more, 100 * share, eta));
}

}    // namespace sheaf
