#include "engine/config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "base/error.h"
#include "engine/config_keys.h"
#include "engine/key_lines.h"

using namespace sheaf;

namespace {

const std::string kRun =
    R"({"model": "m", "data": {"train": "t.txt", "seq_len": 8}, "run": {"steps": 10}, "train_micro_batch_size_per_gpu": 2})";

LoadedConfig load(const std::vector<std::string>& overrides, std::int64_t ranks = 0) {
  return parse_config(kRun, "run.json", overrides, ranks);
}
RunConfig config(const std::vector<std::string>& overrides, std::int64_t ranks = 0) { return load(overrides, ranks).config; }

// Overrides under which the key can be set: its scheduler, with what that needs.
std::vector<std::string> surroundings(const Key& key) {
  const std::size_t bracket = key.path.find('[');
  if (bracket == std::string::npos) return {};
  const std::string type = key.path.substr(bracket + 1, key.path.find(']') - bracket - 1);
  std::vector<std::string> out = {"scheduler.type=" + type};
  if (type == "OneCycle") out.insert(out.end(), {"scheduler.params.cycle_min_lr=0.1", "scheduler.params.cycle_max_lr=0.2"});
  return out;
}
std::string as_written(std::string path) {
  if (const std::size_t bracket = path.find('['); bracket != std::string::npos) path.erase(bracket, path.find(']') + 1 - bracket);
  return path;
}

}    // namespace

TEST(Config, the_run_of_the_design_document_reads_except_for_what_is_not_built) {
  const std::string text = R"({ "model": "Qwen3-30B-A3B",   // a folder
  "data":  {"train": "corpus.bin", "seq_len": 4096},
  "run":   {"steps": 1000, "output": "out", "save_every": 200, "seed": 1},
  "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4, "gradient_clipping": 1.0,
  "bf16": {"enabled": true}, "zero_optimization": {"stage": 3},
  "optimizer": {"type": "AdamW", "params": {"lr": 3e-4}}, "scheduler": {"type": "WarmupCosineLR", "params": {"total_num_steps": 1000}} })";
  const RunConfig c = parse_config(text, "run.json").config;
  EXPECT_EQ(c.model.folder, "Qwen3-30B-A3B");
  EXPECT_EQ(c.data.train, (std::vector<CorpusFile>{{"corpus.bin"}}));
  EXPECT_EQ(c.data.seq_len, 4096);
  EXPECT_EQ(c.run.steps, 1000);
  EXPECT_EQ(c.run.save_every, 200);
  EXPECT_EQ(c.batch, (BatchConfig{8, 2, 4}));
  EXPECT_TRUE(c.bf16);
  EXPECT_EQ(c.zero.stage, 3);
  EXPECT_EQ(c.optimizer.lr, 3e-4);
  EXPECT_EQ(std::get<WarmupCosineLR>(c.scheduler).total_num_steps, 1000);
}

TEST(Config, defaults_are_deepspeeds) {
  const RunConfig c = config({});
  EXPECT_EQ(c.gradient_clipping, 1.0);
  EXPECT_EQ(c.optimizer, (OptimizerConfig{OptimizerType::adamw, 1e-3, 0.9, 0.999, 1e-8, 0, true, true}));
  EXPECT_TRUE(std::holds_alternative<ConstantRate>(c.scheduler));
  EXPECT_FALSE(c.bf16);
  EXPECT_EQ(c.zero.stage, 0);
  EXPECT_EQ(c.run.output, "out");
  EXPECT_EQ(c.run.seed, 1);
  EXPECT_EQ(c.run.timeout_s, 300);
  EXPECT_EQ(c.run.deterministic, std::nullopt);
  EXPECT_EQ(c.data.packing, Packing::concat);
  EXPECT_TRUE(c.data.shuffle);
}

TEST(Config, adam_is_adamw_unless_adam_w_mode_is_false) {
  EXPECT_TRUE(config({"optimizer.type=adam"}).optimizer.decoupled());
  EXPECT_FALSE(config({"optimizer.type=Adam", "optimizer.params.adam_w_mode=false"}).optimizer.decoupled());
  EXPECT_TRUE(config({"optimizer.type=AdamW", "optimizer.params.adam_w_mode=false"}).optimizer.decoupled());
}

TEST(Config, a_corpus_is_a_path_a_list_of_paths_or_paths_with_weights) {
  using Files = std::vector<CorpusFile>;
  const auto files_of = [](const std::string& value) {
    const RunConfig c = config({"data.train=" + value});
    EXPECT_EQ(parse_config(resolved(c).dump(), "again").config, c) << value;
    return c.data.train;
  };
  EXPECT_EQ(files_of("a.txt"), (Files{{"a.txt"}}));
  EXPECT_EQ(files_of("2026"), (Files{{"2026"}}));
  EXPECT_EQ(files_of(R"(["a.txt", "b.bin"])"), (Files{{"a.txt"}, {"b.bin"}}));
  EXPECT_EQ(files_of(R"([{"path": "a.txt", "weight": 0.7}, {"path": "b.bin", "weight": 3}])"), (Files{{"a.txt", 0.7}, {"b.bin", 3}}));
  EXPECT_EQ(files_of(R"([{"path": "a.txt", "weight": 1}])"), (Files{{"a.txt", 1}}));
}
TEST(Config, a_usual_deepspeed_config_is_accepted_unchanged) {
  const LoadedConfig loaded =
      load_deepspeed_config("tests/engine/ds_config.json", "folder", "t.txt", {"run.steps=500", "data.seq_len=128"});
  const RunConfig& c = loaded.config;
  EXPECT_EQ(c.model.folder, "folder");
  EXPECT_EQ(c.data.train, (std::vector<CorpusFile>{{"t.txt"}}));
  EXPECT_EQ(c.batch, (BatchConfig{8, 2, 4}));
  EXPECT_EQ(c.optimizer.beta2, 0.95);
  const auto& decay = std::get<WarmupDecayLR>(c.scheduler);
  EXPECT_EQ(decay.warmup.num_steps, 100);
  EXPECT_EQ(decay.warmup.max_lr, 3e-4);
  EXPECT_EQ(decay.total_num_steps, 500);
  ASSERT_EQ(loaded.banner.size(), 2u);
  for (const char* name : {"steps_per_print", "overlap_comm", "comms_logger.{debug", "elasticity.{max_train_batch_size"})
    EXPECT_NE(loaded.banner[1].find(name), std::string::npos) << name << " in " << loaded.banner[1];
  EXPECT_EQ(loaded.banner[1].find("reduce_bucket_size"), std::string::npos) << "auto is absent: " << loaded.banner[1];
}

TEST(Config, integer_keys_accept_5e8) {
  EXPECT_EQ(config({"run.steps=5e8"}).run.steps, 500000000);
  EXPECT_EQ(config({"run.seed=9223372036854775807"}).run.seed, INT64_MAX);
}

TEST(Config, auto_means_absent) {
  EXPECT_EQ(config({"gradient_clipping=auto", "run.seed=\"auto\"", "optimizer=auto", "scheduler=auto"}), config({}));
  EXPECT_EQ(config({"optimizer.params.betas=auto"}).optimizer.beta1, 0.9);
}

TEST(Config, the_last_override_holds_and_is_json_if_it_parses_as_json_else_text) {
  const RunConfig c =
      config({"run.output=a", "run.output=b c", "optimizer.params={\"lr\": 5}", "data.shuffle=false", "data.tokenizer=bytes"});
  EXPECT_EQ(c.run.output, "b c");
  EXPECT_EQ(c.optimizer.lr, 5);
  EXPECT_FALSE(c.data.shuffle);
  EXPECT_EQ(c.data.tokenizer, "bytes");
  EXPECT_EQ(config({"run.output=2026"}).run.output, "2026");
  EXPECT_EQ(config({"run.output=\"x\""}).run.output, "x");
}

TEST(Config, bfloat16_is_another_spelling_of_bf16) {
  EXPECT_TRUE(config({"bfloat16.enabled=true"}).bf16);
  EXPECT_TRUE(parse_config(kRun.substr(0, kRun.size() - 1) + R"(, "bfloat16": {"enabled": true}})", "run.json").config.bf16);
}

TEST(Config, a_model_from_scratch_is_a_config_file_or_its_contents) {
  const RunConfig file = config({R"(model={"config": "c.json"})"});
  EXPECT_TRUE(file.model.from_scratch());
  EXPECT_EQ(file.model.config, Json("c.json"));
  const RunConfig inside = config({R"(model={"config": {"model_type": "qwen3", "anything": [1, "auto"]}})", "model.config.hidden_size=64"});
  EXPECT_EQ(inside.model.config.dump(), R"({"model_type":"qwen3","anything":[1,"auto"],"hidden_size":64})");
  EXPECT_EQ(parse_config(resolved(inside).dump(), "again").config, inside);
}

TEST(Config, batch_sizes_are_derived_as_deepspeed_does) {
  const auto batch = [](std::vector<std::string> overrides, std::int64_t ranks) {
    overrides.insert(overrides.begin(), "train_micro_batch_size_per_gpu=auto");
    return config(overrides, ranks).batch;
  };
  EXPECT_EQ(batch({"train_micro_batch_size_per_gpu=3"}, 4), (BatchConfig{12, 3, 1}));
  EXPECT_EQ(batch({"train_batch_size=12"}, 4), (BatchConfig{12, 3, 1}));
  EXPECT_EQ(batch({"train_batch_size=24", "train_micro_batch_size_per_gpu=3"}, 4), (BatchConfig{24, 3, 2}));
  EXPECT_EQ(batch({"train_batch_size=24", "gradient_accumulation_steps=2"}, 4), (BatchConfig{24, 3, 2}));
  EXPECT_EQ(batch({"gradient_accumulation_steps=2", "train_micro_batch_size_per_gpu=3"}, 4), (BatchConfig{24, 3, 2}));
  EXPECT_EQ(batch({"train_batch_size=24", "gradient_accumulation_steps=2", "train_micro_batch_size_per_gpu=3"}, 4),
            (BatchConfig{24, 3, 2}));
}

TEST(Config, a_section_that_is_off_refuses_nothing_and_is_named) {
  const LoadedConfig loaded = load({"expert_parallel.enabled=false", "expert_parallel.autoep_size=8"});
  EXPECT_EQ(loaded.config.parallel.ep, 1);
  EXPECT_NE(loaded.banner.at(1).find("expert_parallel.autoep_size"), std::string::npos) << loaded.banner[1];
}

TEST(Config, what_is_resolved_reads_back_as_the_same_run) {
  const std::vector<std::vector<std::string>> cases = {
      {},
      {"bf16.enabled=true", "zero_optimization.stage=2", "run.device=cpu", "run.deterministic=false", "gradient_accumulation_steps=3",
       "optimizer.type=Adam", "optimizer.params.adam_w_mode=false", "optimizer.params.betas=[0.1, 0.3]", "data.packing=documents",
       "data.tokenizer=bytes", "gradient_clipping=0.3"},
      {"scheduler.type=LRRangeTest", "scheduler.params.lr_range_test_staircase=true"},
      {"scheduler.type=OneCycle", "scheduler.params.cycle_min_lr=1e-3", "scheduler.params.cycle_max_lr=0.1",
       "scheduler.params.cycle_second_step_size=0"},
      {"scheduler.type=WarmupLR", "scheduler.params.warmup_type=linear"},
      {R"(expert_parallel={"enabled": true, "preset_model": "mixtral", "load_balance_coeff": 0.001, "top_k": 2})", "run.expert_plan=dedup",
       "run.expert_order=[1, 0]", R"(run.freeze=["*experts*"])"},
      {"scheduler.type=WarmupDecayLR", "scheduler.params.warmup_max_lr=null"},
      {"scheduler.type=WarmupCosineLR", "scheduler.params.cos_min_ratio=0.3333333333333333"},
      {R"(model={"config": {"model_type": "llama"}})"},
  };
  for (const auto& overrides : cases) {
    const RunConfig first = config(overrides, 4);
    const Json written = resolved(first);
    const LoadedConfig again = parse_config(written.dump(2), "run.json", {}, 4);
    EXPECT_EQ(again.config, first) << written.dump(2);
    EXPECT_EQ(resolved(again.config), written);
  }
}

TEST(Config, every_key_can_be_set_to_its_default) {
  for (const Key& key : config_keys()) {
    if (key.required) continue;
    std::vector<std::string> overrides = surroundings(key);
    const RunConfig without = config(overrides);
    overrides.push_back(as_written(key.path) + "=" + key.preset.dump());
    const bool batch = key.path == "train_micro_batch_size_per_gpu";    // null would leave no batch size
    if (batch) overrides.emplace_back("train_batch_size=2");
    EXPECT_NO_THROW(EXPECT_EQ(config(overrides), without) << key.path) << key.path;
  }
}

TEST(Config, every_key_in_use_is_written_and_every_default_has_its_type) {
  for (const Key& key : config_keys()) {
    if (!key.required) {
      const std::optional<Json> accepted = key.accept(key.preset);
      ASSERT_TRUE(accepted) << key.path;
      EXPECT_FALSE(key.refuses(*accepted)) << key.path;
    }
    for (const Json& value : key.only) EXPECT_TRUE(key.accept(value)) << key.path << " " << value;
    // model.config excludes a folder; data_parallel_size is checked and then follows from the ranks
    if (key.status != KeyStatus::used || key.path == "model.config" || key.path == "data_parallel_size") continue;
    std::string pointer = "/" + as_written(key.path);
    std::replace(pointer.begin(), pointer.end(), '.', '/');
    EXPECT_TRUE(resolved(config(surroundings(key))).contains(Json::json_pointer(pointer)))
        << key.path << " is called used, but nothing reads it";
  }
}

TEST(Config, key_lines_finds_keys_past_comments_strings_and_lists) {
  const std::map<std::string, int> want = {{"a", 1}, {"b", 4}, {"b.c", 5}, {"b.d", 5}, {"e", 7}};
  EXPECT_EQ(key_lines("{\"a\": \"x\\\"{\",   // \"no\": {\n/* \"nor\":\n this */\n\"b\": {\n \"c\": [{\"in\": {\"z\": 1}}, \"s\"], \"d\": "
                      "\"a\"\n},\n\"e\": 1}"),
            want);
}

// SHEAF_WRITE_DOCS=1 build/cpu/tests/engine_test --gtest_filter='Config.docs*' writes the file.
TEST(Config, docs_config_md_is_what_the_table_says) {
  const std::string path = "docs/config.md", text = config_markdown();
  if (std::getenv("SHEAF_WRITE_DOCS")) write_file_atomically(path, text);    // NOLINT(concurrency-mt-unsafe): one thread
  EXPECT_TRUE(read_file(path) == text) << path << " is stale: SHEAF_WRITE_DOCS=1 build/cpu/tests/engine_test --gtest_filter='Config.docs*'";
}
