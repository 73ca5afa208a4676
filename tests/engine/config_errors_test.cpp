#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "engine/config.h"

using namespace sheaf;

namespace {

const std::string kRun = R"({
  "model": "m",
  "data": {"train": "t.txt", "seq_len": 8},
  "run": {"steps": 10},
  "train_micro_batch_size_per_gpu": 2
})";

struct Case {
  std::string name;
  std::vector<std::string> overrides;
  std::vector<std::string> says;
  std::string text = kRun;
  std::int64_t ranks = 0;
};

std::string message(const Case& c) {
  try {
    parse_config(c.text, "run.json", c.overrides, c.ranks);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

void expect_says(const Case& c) {
  const std::string got = message(c);
  EXPECT_FALSE(got.empty()) << c.name << ": accepted";
  EXPECT_LE(std::count(got.begin(), got.end(), '\n'), 7) << got;
  for (const std::string& part : c.says) EXPECT_NE(got.find(part), std::string::npos) << c.name << ": " << part << " is not in: " << got;
}

// kRun with one more line, 6.
std::string with(const std::string& line) { return kRun.substr(0, kRun.size() - 2) + ",\n  " + line + "\n}"; }

}    // namespace

TEST(ConfigErrors, of_the_file_name_file_line_key_value_and_what_was_wanted) {
  const std::vector<Case> cases = {
      {"broken", {}, {"run.json:2:1", "not JSON"}, "{\"model\": 3,\n}"},
      {"no object", {}, {"run.json", "a list", "an object"}, "[1]"},
      {"duplicate", {}, {"run.json", "'bf16'", "twice"}, with(R"("bf16": {}, "bf16": {})")},
      {"wrong type", {}, {"run.json:6: gradient_clipping", "\"1\" (a string)", "a number >= 0"}, with(R"("gradient_clipping": "1")")},
      {"bound",
       {},
       {"run.json:6: zero_optimization.stage", "4 (an integer)", ">= 0 and <= 3"},
       with(R"("zero_optimization": {"stage": 4})")},
      {"section", {}, {"run.json:6: zero_optimization", "true", "an object"}, with(R"("zero_optimization": true)")},
      {"null", {}, {"run.json:6: gradient_clipping", "null", "a number"}, with(R"("gradient_clipping": null)")},
      {"choice", {}, {"data.packing", "'concat', 'documents'"}, R"({"data": {"packing": "dense"}})"},
      {"pair", {}, {"optimizer.params.betas", "a list of two numbers >= 0 and < 1"}, with(R"("optimizer": {"params": {"betas": [0.9]}})")},
      {"pair bound", {}, {"optimizer.params.betas", "< 1"}, with(R"("optimizer": {"params": {"betas": [0.9, 1]}})")},
      {"unknown", {}, {"run.json:6: gradient_cliping: unknown key", "did you mean 'gradient_clipping'?"}, with(R"("gradient_cliping": 1)")},
      {"unknown inside",
       {},
       {"zero_optimization.stge", "in section 'zero_optimization'", "'stage'"},
       with(R"("zero_optimization": {"stge": 1})")},
      {"elsewhere", {}, {"stage: unknown key", "did you mean 'zero_optimization.stage'?"}, with(R"("stage": 1)")},
      {"nothing near", {}, {"run.xyzzyplugh", "known: steps, output"}, R"({"run": {"xyzzyplugh": 1}})"},
      {"a path as a name", {}, {"run.seed: unknown key"}, with(R"("run.seed": 3)")},
      {"a table path as a name", {}, {"unknown key"}, with(R"("scheduler[WarmupLR]": {"params": {}})")},
      {"alias and name", {}, {"run.json:6: bfloat16", "'bf16'"}, with(R"("bfloat16": {}, "bf16": {})")},
  };
  for (const Case& c : cases) expect_says(c);
}

TEST(ConfigErrors, integer_keys_refuse_true_fractions_text_and_what_does_not_fit) {
  for (const char* value : {"true", "1.5", "\"7\"", "[1]", "1e19", "18446744073709551615", "-1", "0", "null"})
    expect_says({value,
                 {std::string("run.steps=") + value},
                 {"command line: run.steps", value == std::string("1e19") ? "1e+19" : value, "an integer >= 1"}});
}

TEST(ConfigErrors, missing_keys_are_named_with_what_they_are) {
  expect_says({"model",
               {},
               {"run.json: model is missing", "HuggingFace folder"},
               R"({"data": {"train": "t", "seq_len": 8}, "run": {"steps": 1}})"});
  expect_says({"model is auto", {"model=auto"}, {"model is missing"}});
  expect_says({"empty model", {"model={}"}, {"model is missing"}});
  expect_says({"train", {"data.train=auto"}, {"data.train is missing", ".txt"}});
  for (const char* corpus : {"[]", "[1]", R"(["a.txt", {"path": "b.txt", "weight": 1}])", R"([{"path": "b.txt", "weight": 0}])",
                             R"([{"path": "b.txt", "wieght": 1}])", R"({"path": "b.txt"})"})
    expect_says({"corpus", {fmt::format("data.train={}", corpus)}, {"data.train: found ", "a list of paths"}});
  expect_says({"seq_len", {"data.seq_len=auto"}, {"data.seq_len is missing"}});
  expect_says({"steps", {"run.steps=auto"}, {"run.steps is missing"}});
  expect_says({"cycle", {"scheduler.type=OneCycle"}, {"scheduler.params.cycle_min_lr is missing"}});
}

TEST(ConfigErrors, what_is_not_built_is_refused_with_what_is_accepted) {
  const std::vector<Case> cases = {
      {"ep", {"expert_parallel={\"enabled\": true, \"autoep_size\": 8}"}, {"ep 8 · etp 1 does not divide the 1 rank", "start more ranks"}},
      {"fp16", {"fp16.enabled=true"}, {"fp16.enabled", "not built yet"}},
      {"offload", {"zero_optimization.offload_optimizer.device=cpu"}, {"offload_optimizer.device", "off the device", "accepted: \"none\""}},
      {"offload parameters", {"zero_optimization.offload_param.device=nvme"}, {"offload_param.device"}},
      {"old offload", {"zero_optimization.cpu_offload=true"}, {"cpu_offload"}},
      {"quantised", {"zero_optimization.zero_quantized_weights=true"}, {"zero_quantized_weights"}},
      {"optimizer", {"optimizer.type=Lion"}, {"optimizer.type", "\"Lion\"", "accepted: \"AdamW\", \"Adam\""}},
      {"other optimizer", {"optimizer.type=Adafactor"}, {"optimizer.type", "'AdamW', 'Adam'"}},
      {"amsgrad", {"optimizer.params.amsgrad=true"}, {"amsgrad"}},
      {"clipping", {"optimizer.params.max_grad_norm=1"}, {"use gradient_clipping"}},
      {"elastic", {"elasticity.enabled=true"}, {"elasticity.enabled"}},
      {"curriculum", {"curriculum_learning={\"enabled\": true}"}, {"curriculum_learning.enabled"}},
  };
  for (const Case& c : cases) expect_says(c);
}

TEST(ConfigErrors, degrees_that_do_not_fit_the_ranks) {
  const std::vector<Case> cases = {
      {"tp", {"tensor_parallel.autotp_size=2"}, {"tp 2 · sp 1 does not divide the 1 rank;"}},
      {"sp", {"sequence_parallel_size=2"}, {"tp 1 · sp 2 does not divide the 1 rank;"}},
      {"product", {"run.nproc=4", "sequence_parallel_size=3"}, {"does not divide the 4 ranks"}},
      {"dp", {"run.nproc=4", "data_parallel_size=3"}, {"data_parallel_size", "found 3", "= 4"}},
      {"two sizes",
       {"run.nproc=4", "tensor_parallel={\"autotp_size\": 2, \"partition_config\": {\"tp_size\": 4}}"},
       {"partition_config.tp_size", "found 4", "is 2"}},
      {"mics", {"run.nproc=4", "zero_optimization.mics_shard_size=2"}, {"mics_shard_size", "stage 1, 2 or 3", "it is 0"}},
      {"hpz", {"run.nproc=4", "zero_optimization={\"stage\": 2, \"zero_hpz_partition_size\": 2}"}, {"zero_hpz_partition_size", "stage 3"}},
  };
  for (const Case& c : cases) expect_says(c);
}

TEST(ConfigErrors, bf16_gradients_of_fp32_are_refused) {
  expect_says({"fp32", {"data_types.grad_accum_dtype=bf16"}, {"data_types.grad_accum_dtype", "found 'bf16'", "bf16.enabled true"}});
  EXPECT_EQ(message({"bf16", {"data_types.grad_accum_dtype=bf16", "bf16.enabled=true"}, {}}), "");
}

TEST(ConfigErrors, both_half_precisions_are_refused) {
  expect_says({"both", {"fp16.enabled=true", "bf16.enabled=true"}, {"fp16.enabled", "bf16.enabled", "one of them"}});
}

TEST(ConfigErrors, scheduler_parameters_belong_to_their_scheduler) {
  expect_says({"typo",
               {"scheduler.type=WarmupLR", "scheduler.params.warmup_num_step=3"},
               {"scheduler.params.warmup_num_step:", "WarmupLR has no such parameter", "'warmup_num_steps'", "it takes: warmup_min_lr"}});
  expect_says({"of another", {"scheduler.type=WarmupLR", "scheduler.params.total_num_steps=3"}, {"WarmupLR has no such parameter"}});
  expect_says({"type", {"scheduler.type=CosineAnnealingLR"}, {"scheduler.type", "'WarmupCosineLR'"}});
  expect_says({"no type", {"scheduler.params.warmup_num_steps=3"}, {"no scheduler.type", "'OneCycle'"}});
  expect_says({"steps", {"scheduler.type=WarmupLR", "scheduler.params.warmup_num_steps=0"}, {"warmup_num_steps", "an integer >= 1"}});
  expect_says({"key beside", {"scheduler.type=WarmupLR", "scheduler.parms={}"}, {"scheduler.parms", "'params'"}});
}

TEST(ConfigErrors, batch_sizes_that_disagree_show_the_arithmetic) {
  expect_says({"none", {"train_micro_batch_size_per_gpu=auto"}, {"no batch size", "train_micro_batch_size_per_gpu", "train_batch_size"}});
  expect_says({"accumulation alone", {"train_micro_batch_size_per_gpu=auto", "gradient_accumulation_steps=4"}, {"no batch size"}});
  expect_says({"three",
               {"train_batch_size=9", "gradient_accumulation_steps=4"},
               {"train_batch_size: found 9", "train_micro_batch_size_per_gpu 2 × gradient_accumulation_steps 4 × 1 rank = 8"}});
  expect_says({"derived", {"train_batch_size=9"}, {"gradient_accumulation_steps 4 (derived)", "= 8"}});
  expect_says({"too small", {"train_batch_size=1"}, {"gradient_accumulation_steps 0 (derived)"}});
  expect_says({"ranks", {"train_batch_size=6"}, {"× 4 ranks = 0"}, kRun, 4});
  expect_says({"huge", {"gradient_accumulation_steps=9e18"}, {"too many"}});
  expect_says({"dp", {"data_parallel_size=3"}, {"data_parallel_size: found 3", "4 ranks = 4"}, kRun, 4});
}

TEST(ConfigErrors, overrides_name_the_command_line) {
  expect_says({"no value", {"run.steps"}, {"command line", "'run.steps'", "key.path=value"}});
  expect_says({"no key", {"=3"}, {"command line", "key.path=value"}});
  expect_says({"empty part", {"run..steps=3"}, {"command line", "not a key path"}});
  expect_says({"unknown", {"run.stpes=3"}, {"command line: run.stpes", "'steps'"}});
  expect_says({"unknown section", {"rum.steps=3"}, {"command line: rum", "'run'"}});
  expect_says({"inside a number", {"run.steps.x=3"}, {"command line", "run.steps", "an integer (10)"}});
  expect_says({"inside a folder", {"model.config=c.json"}, {"'model' is a string"}});
  expect_says({"empty", {"run.output="}, {"command line: run.output", "not empty"}});
  expect_says({"no folder", {"model="}, {"command line: model", "not empty"}});
  expect_says({"not UTF-8", {"run.output=\xff"}, {"command line", "'run.output'", "not UTF-8"}});
  expect_says({"type", {"run.output=[1]"}, {"command line: run.output", "a string"}});
}

TEST(ConfigErrors, files_that_cannot_be_read_are_named) {
  EXPECT_THROW(load_config("tests/engine/absent.json"), UserError);
  EXPECT_THROW(load_config("tests/engine"), UserError);
  try {
    load_deepspeed_config("tests/engine/ds_config.json", "m", "t.txt", {"run.steps=3"});
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("data.seq_len is missing"), std::string::npos) << error.what();
  }
}
