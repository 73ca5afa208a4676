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
  anchored("re:.*up_proj.* colwise; layers.*.mlp.up_proj rowwise");    // the second is shadowed, and matches all the same
  EXPECT_USER_ERROR(anchored("re:.*q_proj.* colwise"), "tp_plan: 're:.*q_proj.*' matches no parameter");
  EXPECT_USER_ERROR(anchored("re:(a colwise"), "tp_plan: '(a' is no regular expression");
  EXPECT_USER_ERROR(anchored("colwise"), "tp_plan: 'colwise' is no \"PATTERN STYLE\"");
}

// The glossary of transformers' styles, old and new.
TEST(Anchor, every_style_is_known) {
  for (const char* style : {"colwise",
                            "colwise_gather_output",
                            "rowwise",
                            "rowwise_split_input",
                            "packed_colwise",
                            "packed_rowwise",
                            "embedding_rowwise",
                            "embedding_colwise",
                            "sequence_parallel",
                            "replicated_with_grad_allreduce",
                            "mla_kv_a_proj",
                            "grouped_gemm",
                            "ep_router",
                            "moe_tp_experts",
                            "moe_identity_expert",
                            "colwise_rep",
                            "rowwise_rep",
                            "local_colwise",
                            "local_rowwise",
                            "local_packed_rowwise",
                            "local",
                            "gather",
                            "replicate",
                            "megamoe_router",
                            "megamoe_experts",
                            "all_reduce",
                            "moe_experts_packed_colwise",
                            "moe_experts_colwise",
                            "moe_experts_rowwise"})
    anchored(std::string("layers.*.mlp.up_proj ") + style);
}
