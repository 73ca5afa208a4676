// What a tensor-parallel plan that does not fit is told.
#include <gtest/gtest.h>

#include "ops/op_table.h"
#include "passes/pass.h"
#include "support/files.h"

using namespace sheaf;

static void anchored(const std::string& plan) {
  Options options;
  options.mesh = "mesh a0=2    axes tp=a0";
  options.tp_plan = plan;
  anchor(parse_graph("state @model.layers.0.mlp.up_proj.weight fp32[8, 4] {init=normal, std=1.0, trainable=true}\n", all_ops()), options);
}

TEST(Anchor, a_plan_that_does_not_fit_is_a_user_error) {
  anchored("layers.*.mlp.up_proj colwise");
  anchored("model.layers.0.mlp.up_proj rowwise;");
  EXPECT_USER_ERROR(anchored("layers.*.mlp.up_proj colwize"),
                    "tp_plan: layers.*.mlp.up_proj: unknown style 'colwize'; did you mean 'colwise'?");
  EXPECT_USER_ERROR(anchored("layers.*.mlp.up_prj colwise"),
                    "tp_plan: 'layers.*.mlp.up_prj' matches no parameter; did you mean 'layers.*.mlp.up_proj'?");
  EXPECT_USER_ERROR(anchored("wte embedding_rowwise"), "matches no parameter; the model has layers.*.mlp.up_proj");
  EXPECT_USER_ERROR(anchored("colwise"), "tp_plan: 'colwise' is no \"PATTERN STYLE\"");
}
