// What `sheaf train` wrote, as tests/engine/train_test.py hands it over: our graph's logits equal those of transformers.
#include <gtest/gtest.h>

#include "models/oracle.h"

using namespace sheaf;
using namespace sheaf::testing;

TEST(TrainedModel, logits_and_loss_equal_transformers) {
  const char* given = std::getenv("SHEAF_TEST_MODEL");
  if (!given) GTEST_SKIP() << "only as part of the test `train`";
  const std::string folder = given;
  const Fixture fixture = {folder, read_json(folder + "/config.json"), read_tensors(folder + "/model.safetensors"),
                           read_tensors(folder + "/oracle.safetensors")};
  const StepResult step = run_step(fixture);
  // Two fp32 programs that differ in the order of sums.
  EXPECT_LE(relative_error(step.logits, fixture.oracle.at("logits")), 1e-5);
  const double loss = fixture.oracle.at("loss").item<double>();
  EXPECT_NEAR(step.loss, loss, 1e-5 * loss);
}
