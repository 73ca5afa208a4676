#include "models/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/model_config.h"

using namespace sheaf;

// One unit in the last place of a float is at most 2^-23 of it; HF's vectorised pow and ours may round apart by one, and the division after
// it by another half.
TEST(Rope, frequencies_equal_transformers_to_rounding_at_the_sizes_of_real_models) {
  const Json rows = read_json(".cache/oracle/rope.json");
  EXPECT_GE(rows.size(), 24u);
  double worst = 0;
  for (const Json& row : rows) {
    const ModelConfig config = parse_model_config(row["config"]);
    const Rope rope = rope_frequencies(config.rope, config.head_dim, row["seq_len"].get<std::int64_t>());
    ASSERT_EQ(rope.inv_freq.size(), row["inv_freq"].size());
    EXPECT_NEAR(rope.scaling, row["scaling"].get<double>(), 1e-12);
    for (std::size_t i = 0; i < rope.inv_freq.size(); ++i) {
      const double expected = row["inv_freq"][i].get<double>(), error = std::abs(rope.inv_freq[i] - expected) / expected;
      EXPECT_LE(error, 2 * 0x1p-23) << row["config"]["rope_parameters"].dump() << " seq " << row["seq_len"] << " frequency " << i;
      worst = std::max(worst, error);
    }
  }
  RecordProperty("worst", std::to_string(worst));
  if (std::getenv("SHEAF_VERBOSE")) fmt::print("rope: {:.2e}\n", worst);
}
