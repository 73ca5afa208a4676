// Logits, loss and every gradient of tiny models of every family, flag and rope type against HF transformers in fp32.
#include "models/oracle.h"

#include <ATen/ops/gather.h>
#include <ATen/ops/sort.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/text.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

// By name: a fixture that is missing fails instead of shrinking the test.
const char* const kFixtures[] = {"llama",
                                 "llama_bias",
                                 "llama_tied",
                                 "llama_padding",
                                 "llama_padding_tied",
                                 "llama_old_spelling",
                                 "llama_gelu",
                                 "llama_gelu_tanh",
                                 "llama_gelu_new",
                                 "llama_relu",
                                 "rope_linear",
                                 "rope_dynamic",
                                 "rope_dynamic_short",
                                 "rope_llama3",
                                 "rope_llama3_new_spelling",
                                 "rope_yarn",
                                 "rope_yarn_mscale",
                                 "rope_yarn_attention_factor",
                                 "rope_longrope_short",
                                 "rope_longrope_long",
                                 "rope_longrope_attention_factor",
                                 "mistral_window",
                                 "mistral_no_window",
                                 "qwen2",
                                 "qwen2_sliding_tied",
                                 "qwen3",
                                 "qwen3_tied_default_head_dim",
                                 "qwen3_bias_layer_types",
                                 "mixtral",
                                 "mixtral_aux_window",
                                 "qwen2_moe",
                                 "qwen2_moe_sliding_aux",
                                 "qwen3_moe",
                                 "qwen3_moe_sliding_aux",
                                 "olmoe",
                                 "olmoe_clip_aux",
                                 "deepseek_v2",
                                 "deepseek_v2_groups_yarn",
                                 "deepseek_v3",
                                 "deepseek_v3_yarn",
                                 "deepseek_v3_dense",
                                 "glm4_moe",
                                 "glm4_moe_groups_qk_norm",
                                 "gpt_oss",
                                 "gpt_oss_aux",
                                 "ernie4_5_moe",
                                 "ernie4_5_moe_aux",
                                 "minimax_m2",
                                 "minimax_m2_aux",
                                 "llama4",
                                 "llama4_top2",
                                 "llama4_packed"};

// Two fp32 programs that differ in the order of sums.
constexpr double kTolerance = 1e-5;

class Oracle : public ::testing::TestWithParam<const char*> {};

// How many decisions differ from HF's, over all layers with experts. One may only where its score and that of the expert in its place are
// as good as equal: correct programs that sum in another order decide it either way.
std::int64_t differing_decisions(const Fixture& fixture, const StepResult& step) {
  std::int64_t differing = 0;
  for (std::size_t i = 0; i < step.routers.size(); ++i) {
    const auto& [scores, chosen] = step.routers[i];
    const at::Tensor theirs = fixture.oracle.at(fmt::format("choices.{}", i));
    const auto chosen_scores = [&](const at::Tensor& ids) { return std::get<0>(at::sort(at::gather(scores, -1, ids.to(at::kLong)), -1)); };
    const auto sorted = [](const at::Tensor& ids) { return std::get<0>(at::sort(ids.to(at::kLong), -1)); };
    const at::Tensor differs = sorted(chosen).ne(sorted(theirs)).any(-1);
    const at::Tensor gap = chosen_scores(chosen).sub(chosen_scores(theirs)).abs().amax(-1);
    EXPECT_LT(gap.masked_select(differs).sum().item<double>(), 1e-5) << "layer " << i << " sends tokens elsewhere than HF";
    differing += differs.sum().item<std::int64_t>();
  }
  if (differing > 0) fmt::print("{}: {} decisions differ from HF's by a tie\n", fixture.folder, differing);
  return differing;
}

}    // namespace

TEST_P(Oracle, logits_loss_and_every_gradient_equal_transformers) {
  const Fixture fixture = read_fixture(GetParam());
  StepResult step = run_step(fixture);
  if (differing_decisions(fixture, step) > 0) step = run_step(fixture, {.replay = true});
  double worst = relative_error(step.logits, fixture.oracle.at("logits"));
  std::string where = "logits";
  EXPECT_LE(worst, kTolerance) << "logits";
  const double loss = fixture.oracle.at("loss").item<double>();
  EXPECT_NEAR(step.loss, loss, kTolerance * loss);
  double squares = 0;
  std::size_t parameters = 0;
  for (const auto& [key, expected] : fixture.oracle) {
    if (!key.starts_with("grad.")) continue;
    const std::string name = key.substr(5);
    ++parameters;
    ASSERT_TRUE(step.gradients.contains(name)) << name << ": a parameter of HF without a gradient here";
    squares += expected.to(at::kDouble).square().sum().item<double>();
    const double error = relative_error(step.gradients.at(name), expected);
    EXPECT_LE(error, kTolerance) << name;
    if (error > worst) worst = error, where = name;
  }
  EXPECT_EQ(step.gradients.size(), parameters) << "a parameter here that HF lacks";
  EXPECT_NEAR(step.grad_norm, std::sqrt(squares), kTolerance * std::sqrt(squares));
  EXPECT_EQ(step.tokens, fixture.oracle.at("labels").ge(0).sum().item<std::int64_t>());
  EXPECT_EQ(step.commit, 1);
  RecordProperty("worst", fmt::format("{:.2e} {}", worst, where));
  if (std::getenv("SHEAF_VERBOSE")) fmt::print("{}: {:.2e} at {}\n", GetParam(), worst, where);
}

INSTANTIATE_TEST_SUITE_P(Transformers, Oracle, ::testing::ValuesIn(kFixtures), [](const auto& info) { return std::string(info.param); });

TEST(Models, every_fixture_is_tested) {
  std::set<std::string> made, tested(std::begin(kFixtures), std::end(kFixtures));
  for (const auto& entry : std::filesystem::directory_iterator(".cache/oracle"))
    if (std::filesystem::exists(entry.path() / "config.json")) made.insert(entry.path().filename());
  EXPECT_EQ(made, tested);
}

// The test of the test: with one key of its config changed, a fixture must not match any more.
TEST(Models, a_fixture_notices_when_its_feature_is_lost) {
  const std::pair<const char*, const char*> changes[] = {
      {"llama_old_spelling", R"({"rope_theta": null})"},
      {"llama_gelu", R"({"hidden_act": "gelu_new"})"},
      {"llama_relu", R"({"hidden_act": "silu"})"},
      {"rope_linear", R"({"rope_scaling": null})"},
      {"rope_dynamic", R"({"max_position_embeddings": 24})"},
      {"rope_llama3", R"({"rope_scaling": null})"},
      {"rope_llama3_new_spelling", R"({"rope_parameters": {"low_freq_factor": 2}})"},
      {"rope_yarn", R"({"rope_scaling": null})"},
      {"rope_yarn_mscale", R"({"rope_parameters": {"mscale": null}})"},
      {"rope_yarn_mscale", R"({"rope_parameters": {"truncate": null}})"},
      {"rope_yarn_mscale", R"({"rope_parameters": {"beta_fast": null}})"},
      {"rope_yarn_attention_factor", R"({"rope_parameters": {"attention_factor": null}})"},
      {"rope_longrope_short", R"({"rope_parameters": {"original_max_position_embeddings": 23}})"},
      {"rope_longrope_long", R"({"original_max_position_embeddings": 24})"},
      {"rope_longrope_attention_factor", R"({"rope_scaling": {"attention_factor": null}})"},
      {"mistral_window", R"({"sliding_window": 8})"},
      {"mistral_no_window", R"({"sliding_window": 20})"},
      {"qwen2_sliding_tied", R"({"max_window_layers": 0})"},
      {"qwen2_sliding_tied", R"({"max_window_layers": 2})"},
      {"qwen2_sliding_tied", R"({"use_sliding_window": false})"},
      {"qwen3_bias_layer_types", R"({"layer_types": null, "max_window_layers": 1})"},
      {"qwen3", R"({"rms_norm_eps": 1e-2})"},
      {"mixtral", R"({"num_experts_per_tok": 3})"},
      {"mixtral_aux_window", R"({"sliding_window": null})"},
      {"qwen2_moe_sliding_aux", R"({"max_window_layers": 2})"},
      {"qwen2_moe", R"({"norm_topk_prob": true})"},
      {"qwen3_moe_sliding_aux", R"({"norm_topk_prob": false})"},
      {"olmoe_clip_aux", R"({"clip_qkv": null})"},
      {"deepseek_v2_groups_yarn", R"({"topk_method": "greedy"})"},
      {"deepseek_v2_groups_yarn", R"({"topk_group": 3})"},
      {"deepseek_v2_groups_yarn", R"({"routed_scaling_factor": null})"},
      {"deepseek_v2_groups_yarn", R"({"rope_scaling": {"mscale_all_dim": null}})"},
      {"deepseek_v3", R"({"n_group": 1, "topk_group": 1})"},
      {"deepseek_v3", R"({"rope_interleave": false})"},
      {"deepseek_v3", R"({"norm_topk_prob": false})"},
      {"deepseek_v3", R"({"num_experts_per_tok": 2})"},
      {"glm4_moe", R"({"partial_rotary_factor": 1.0})"},
      {"glm4_moe_groups_qk_norm", R"({"n_group": 1})"},
      {"gpt_oss", R"({"rope_parameters": {"rope_type": "default", "rope_theta": 150000}})"},
      {"gpt_oss", R"({"sliding_window": 6})"},
      {"gpt_oss", R"({"layer_types": ["full_attention", "sliding_attention"]})"},
      {"ernie4_5_moe_aux", R"({"moe_norm_min": null})"},
      {"minimax_m2", R"({"rope_parameters": {"partial_rotary_factor": 1.0}})"},
      {"llama4", R"({"attention_chunk_size": 10})"},
      {"llama4", R"({"floor_scale": 9})"},
      {"llama4", R"({"attn_temperature_tuning": false})"},
      {"llama4", R"({"use_qk_norm": false})"},
      {"llama4", R"({"no_rope_layer_interval": 3})"},
      {"llama4_packed", R"({"attention_chunk_size": 24})"},
  };
  for (const auto& [name, patch] : changes) {
    Fixture fixture = read_fixture(name);
    fixture.config.merge_patch(parse_json(patch, "patch"));
    EXPECT_GE(relative_error(run_step(fixture).logits, fixture.oracle.at("logits")), 20 * kTolerance) << name << " with " << patch;
  }
}

TEST(Models, states_have_the_names_and_shapes_of_the_file) {
  for (const char* name : kFixtures) {
    const Fixture fixture = read_fixture(name);
    const Graph graph = build_model(fixture.config, {2, 24}, DType::bf16);
    std::size_t found = 0;
    for (const Value v : graph.all(ValueKind::state)) {
      const ValueInfo& state = graph[v];
      if (!state.attrs.has("trainable")) continue;
      ++found;
      ASSERT_TRUE(fixture.model.contains(state.name)) << state.name;
      const at::Tensor& tensor = fixture.model.at(state.name);
      EXPECT_EQ(file_shape(state), tensor.sizes().vec()) << state.name;
      EXPECT_EQ(num_elements(state.type.shape), tensor.numel()) << state.name;
    }
    EXPECT_EQ(found, fixture.model.size()) << name;
  }
}

// Decisions are the only thing that a replay replaces: of a model that decides as HF does, all numbers stay. And it is a replay: other
// choices give other numbers.
TEST(Models, replayed_decisions_are_those_of_the_oracle) {
  for (const char* name : {"mixtral", "deepseek_v3", "gpt_oss", "llama4"}) {
    Fixture fixture = read_fixture(name);
    const StepResult own = run_step(fixture), replayed = run_step(fixture, {.replay = true});
    EXPECT_LE(relative_error(replayed.logits, own.logits), 1e-6) << name;    // weights of a token's experts in another order
    at::Tensor& chosen = fixture.oracle.at("choices.0");
    chosen = chosen.add(1).remainder(own.routers[0].scores.size(-1)).contiguous();
    EXPECT_GE(relative_error(run_step(fixture, {.replay = true}).logits, own.logits), 1e-2) << name;
  }
}

// The auxiliary loss is quadratic in what it is taken over, so M micro-batches give another one: only the rest must agree.
TEST(Models, two_micro_batches_give_the_numbers_of_one) {
  for (const char* name : {"llama_tied", "qwen3_bias_layer_types", "qwen2_moe", "deepseek_v3", "llama4_packed"}) {
    const Fixture fixture = read_fixture(name);
    const StepResult one = run_step(fixture), two = run_step(fixture, {.num_micro_batches = 2});
    EXPECT_NEAR(one.loss, two.loss, 1e-6 * one.loss);
    EXPECT_EQ(one.tokens, two.tokens);
    EXPECT_LE(relative_error(two.logits, one.logits.slice(0, 0, 1)), 1e-6) << name;    // segment first is row 0
    for (const auto& [parameter, gradient] : one.gradients)
      EXPECT_LE(relative_error(two.gradients.at(parameter), gradient), kTolerance) << name << ": " << parameter;
  }
}

// bf16 keeps 8 bits: 2 layers of roundings of 2^-9 each leave a few percent. This test is about dtypes fitting together.
TEST(Models, bf16_compute_is_close_to_fp32) {
  for (const char* name : {"llama_bias", "qwen2_sliding_tied", "qwen3", "mixtral", "deepseek_v2_groups_yarn", "deepseek_v3", "gpt_oss_aux",
                           "ernie4_5_moe", "olmoe", "llama4"}) {
    const Fixture fixture = read_fixture(name);
    const std::int64_t micro_batches = fixture.config.contains("output_router_logits") ? 1 : 2;
    const StepResult step = run_step(fixture, {.num_micro_batches = micro_batches, .compute = DType::bf16, .replay = true});
    EXPECT_NEAR(step.loss, fixture.oracle.at("loss").item<double>(), 0.02 * step.loss);
    for (const auto& [parameter, gradient] : step.gradients) {
      const bool narrow = micro_batches == 1 && parameter.find(".experts.") != std::string::npos;    // to which nothing is added
      EXPECT_TRUE(gradient.scalar_type() == at::kFloat || narrow) << parameter << ": gradients accumulate in fp32";
      EXPECT_LE(relative_error(gradient, fixture.oracle.at("grad." + parameter)), 0.1) << name << ": " << parameter;
    }
  }
}
