#pragma once
// Learning-rate schedules with DeepSpeed's names and indices (0.19.6, runtime/lr_schedules.py). Defaults are in config_table.inc only.
#include <cstdint>
#include <optional>
#include <variant>

namespace sheaf {

enum class OptimizerType { adamw, adam };    // in the order of optimizer.type's choices

struct OptimizerConfig {
  OptimizerType type = OptimizerType::adamw;
  double lr = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  bool bias_correction = true;
  bool adam_w_mode = true;
  // Decoupled weight decay. As in DeepSpeed, adam_w_mode is asked for type Adam only.
  bool decoupled() const { return type == OptimizerType::adamw || adam_w_mode; }
  bool operator==(const OptimizerConfig&) const = default;
};

enum class WarmupType { log, linear };

struct ConstantRate {
  bool operator==(const ConstantRate&) const = default;
};
struct LRRangeTest {
  double min_lr = 0, step_rate = 0;
  std::int64_t step_size = 1;
  bool staircase = false;
  bool operator==(const LRRangeTest&) const = default;
};
struct OneCycle {
  double min_lr = 0, max_lr = 0, decay_lr_rate = 0;
  std::int64_t first_step_size = 1, first_stair_count = 0, decay_step_size = 0;
  std::optional<std::int64_t> second_step_size, second_stair_count;
  bool cycle_momentum = true;
  double min_mom = 0, max_mom = 0, decay_mom_rate = 0;
  bool operator==(const OneCycle&) const = default;
};
struct WarmupLR {
  double min_lr = 0;
  std::optional<double> max_lr;    // none: the optimizer's rate
  std::int64_t num_steps = 1;
  WarmupType type = WarmupType::log;
  bool operator==(const WarmupLR&) const = default;
};
struct WarmupDecayLR {
  WarmupLR warmup;
  std::int64_t total_num_steps = 0;
  bool operator==(const WarmupDecayLR&) const = default;
};
struct WarmupCosineLR {
  double min_ratio = 0, cos_min_ratio = 0;
  std::int64_t num_steps = 1, total_num_steps = 0;
  WarmupType type = WarmupType::log;
  bool operator==(const WarmupCosineLR&) const = default;
};

// After ConstantRate in the order of scheduler.type's choices.
using SchedulerConfig = std::variant<ConstantRate, LRRangeTest, OneCycle, WarmupLR, WarmupDecayLR, WarmupCosineLR>;

struct Rates {
  double lr, beta1, beta2;
};

// What the update after `committed` committed ones uses. DeepSpeed's scheduler stands at index committed − 1 then: the first update has
// index −1, what the scheduler's constructor leaves in the optimizer. An update that is not committed does not advance it.
Rates rates(const SchedulerConfig& scheduler, const OptimizerConfig& optimizer, std::int64_t committed);

}    // namespace sheaf
