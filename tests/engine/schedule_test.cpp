#include "engine/schedule.h"

#include <gtest/gtest.h>

#include "engine/config.h"

using namespace sheaf;

namespace {

LoadedConfig with_scheduler(const Json& scheduler, const Json& optimizer) {
  const Json run = {{"model", "m"},
                    {"data", {{"train", "t.txt"}, {"seq_len", 8}}},
                    {"run", {{"steps", 40}}},
                    {"train_batch_size", 1},
                    {"optimizer", {{"type", "AdamW"}, {"params", optimizer}}},
                    {"scheduler", scheduler}};
  return parse_config(run.dump(), "run.json");
}

bool close(double a, double b) { return std::abs(a - b) <= 1e-12 * std::abs(b) || (b == 0 && std::abs(a) < 1e-18); }

}    // namespace

// tests/oracle/make_schedules.py drove DeepSpeed's own schedulers.
TEST(Schedule, every_scheduler_gives_the_rates_of_deepspeed_for_40_updates) {
  const Json reference = read_json("tests/engine/schedules.json");
  ASSERT_GE(reference["cases"].size(), 25u);
  for (const Json& row : reference["cases"]) {
    const RunConfig config = with_scheduler(row["scheduler"], reference["optimizer"]).config;
    ASSERT_EQ(row["rates"].size(), 40u);
    for (std::int64_t committed = 0; committed < 40; ++committed) {
      const Rates got = rates(config.scheduler, config.optimizer, committed);
      const Json& want = row["rates"][static_cast<std::size_t>(committed)];
      EXPECT_TRUE(close(got.lr, want[0].get<double>()) && close(got.beta1, want[1].get<double>()) &&
                  close(got.beta2, want[2].get<double>()))
          << row["scheduler"] << " update " << committed + 1 << ": " << got.lr << " " << got.beta1 << " " << got.beta2 << ", wanted "
          << want;
    }
  }
}

TEST(Schedule, a_linear_warm_up_from_0_has_two_updates_at_0) {
  const RunConfig config =
      with_scheduler({{"type", "WarmupLR"}, {"params", {{"warmup_num_steps", 4}, {"warmup_type", "linear"}}}}, {{"lr", 0.4}}).config;
  const std::vector<double> want = {0, 0, 0.1, 0.2, 0.3, 0.4, 0.4};
  for (std::size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(rates(config.scheduler, config.optimizer, static_cast<std::int64_t>(i)).lr, want[i], 1e-15) << i;
}

TEST(Schedule, without_a_scheduler_rates_are_the_optimizers) {
  const RunConfig config = with_scheduler({{"type", nullptr}}, {{"lr", 0.5}, {"betas", {0.1, 0.2}}}).config;
  const Rates got = rates(config.scheduler, config.optimizer, 1000);
  EXPECT_EQ(got.lr, 0.5);
  EXPECT_EQ(got.beta1, 0.1);
  EXPECT_EQ(got.beta2, 0.2);
}

TEST(Schedule, total_num_steps_is_run_steps_unless_given) {
  const LoadedConfig loaded = with_scheduler({{"type", "WarmupCosineLR"}, {"params", {{"total_num_steps", "auto"}}}}, {{"lr", 0.5}});
  EXPECT_EQ(std::get<WarmupCosineLR>(loaded.config.scheduler).total_num_steps, 40);
  EXPECT_NE(loaded.banner.at(0).find("total_num_steps 40"), std::string::npos) << loaded.banner[0];
}
