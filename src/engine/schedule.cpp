#include "engine/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace sheaf {
namespace {

// Share of the warm-up done at index i < steps. DeepSpeed takes at least two steps, so that the logarithm is not 0.
std::int64_t warmup_steps(std::int64_t num_steps) { return std::max<std::int64_t>(2, num_steps); }
double warmup_share(WarmupType type, std::int64_t i, std::int64_t steps) {
  const auto n = static_cast<double>(steps);
  return type == WarmupType::log ? 1.0 / std::log(n) * std::log(static_cast<double>(i + 1)) : static_cast<double>(i) / n;
}

Rates at(const ConstantRate&, Rates base, std::int64_t) { return base; }

Rates at(const LRRangeTest& s, Rates base, std::int64_t i) {
  const double interval = static_cast<double>(i + 1) / static_cast<double>(s.step_size);
  base.lr = s.min_lr * (1 + s.step_rate * (s.staircase ? std::floor(interval) : interval));
  return base;
}

// Height in the cycle, 0 at its ends and 1 at the peak. Stairs are counted in whole updates: the height of a boundary between two
// stairs may be a rounding error below it.
double cycle_height(const OneCycle& s, std::int64_t i) {
  const auto first = static_cast<double>(s.first_step_size);
  const auto second = static_cast<double>(s.second_step_size.value_or(s.first_step_size));
  const double total = first + second, ratio = first / total, position = static_cast<double>(i + 1);
  const double x = 1 + position / total - std::floor(1 + position / total);
  const std::int64_t count = x <= ratio ? s.first_stair_count : s.second_stair_count.value_or(s.first_stair_count);
  if (count == 0) return x <= ratio ? x / ratio : (x - 1) / (ratio - 1);
  const auto stairs = static_cast<double>(count);
  const double inside = std::fmod(position, total);
  return std::floor(inside <= first ? inside * stairs / first : (total - inside) * stairs / second) / stairs;
}

Rates at(const OneCycle& s, Rates base, std::int64_t i) {
  const std::int64_t total = s.first_step_size + s.second_step_size.value_or(s.first_step_size);
  const double intervals = s.decay_step_size == 0 ? 0 : static_cast<double>(i - total + 1) / static_cast<double>(s.decay_step_size);
  const double height = cycle_height(s, i);
  base.lr = i < 0 ? s.min_lr : i < total ? s.min_lr + (s.max_lr - s.min_lr) * height : s.min_lr / (1 + s.decay_lr_rate * intervals);
  if (!s.cycle_momentum) return base;
  // DeepSpeed's constructor starts at the lowest momentum, its cycle at the highest.
  base.beta1 = i < 0       ? s.min_mom
               : i < total ? s.max_mom - (s.max_mom - s.min_mom) * height
                           : s.max_mom * (1 + s.decay_mom_rate * intervals);
  base.beta2 = 0.99;
  return base;
}

Rates at(const WarmupLR& s, Rates base, std::int64_t i) {
  const std::int64_t steps = warmup_steps(s.num_steps);
  const double max_lr = s.max_lr.value_or(base.lr);
  base.lr = i < 0 ? s.min_lr : s.min_lr + (max_lr - s.min_lr) * (i < steps ? warmup_share(s.type, i, steps) : 1);
  return base;
}

Rates at(const WarmupDecayLR& s, Rates base, std::int64_t i) {
  const std::int64_t steps = warmup_steps(s.warmup.num_steps);
  if (i < steps) return at(s.warmup, base, i);
  const double max_lr = s.warmup.max_lr.value_or(base.lr);
  const auto window = static_cast<double>(std::max<std::int64_t>(1, s.total_num_steps - steps));
  base.lr = s.warmup.min_lr + (max_lr - s.warmup.min_lr) * std::max(0.0, static_cast<double>(s.total_num_steps - i) / window);
  return base;
}

Rates at(const WarmupCosineLR& s, Rates base, std::int64_t i) {
  const std::int64_t steps = warmup_steps(s.num_steps);
  double ratio = 0;    // the first update has rate 0, whatever min_ratio is
  if (i >= steps) {
    const auto window = static_cast<double>(std::max<std::int64_t>(1, s.total_num_steps - steps));
    const double progress = std::min(1.0, static_cast<double>(i - steps + 1) / window);
    ratio = std::max(0.0, s.cos_min_ratio + (1 - s.cos_min_ratio) * (1 + std::cos(std::numbers::pi * progress)) / 2);
  } else if (i >= 0) {
    ratio = s.min_ratio + (1 - s.min_ratio) * warmup_share(s.type, i, steps);
  }
  base.lr *= ratio;
  return base;
}

}    // namespace

Rates rates(const SchedulerConfig& scheduler, const OptimizerConfig& optimizer, std::int64_t committed) {
  SHEAF_CHECK(committed >= 0, "{} committed updates", committed);
  const Rates base{optimizer.lr, optimizer.beta1, optimizer.beta2};
  return std::visit([&](const auto& s) { return at(s, base, committed - 1); }, scheduler);
}

}    // namespace sheaf
