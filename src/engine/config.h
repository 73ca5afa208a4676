#pragma once
// A run: what the user asked for, every default filled in and every number checked. Plain values; config_table.inc says what they mean.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/corpus_file.h"
#include "data/packing.h"
#include "engine/schedule.h"

namespace sheaf {

// Either a HuggingFace folder, or a configuration alone: then weights are initialised from run.seed.
struct ModelSource {
  std::string folder;
  Json config;    // null with a folder; else the contents of config.json, or a string that names the file
  bool from_scratch() const { return folder.empty(); }
  bool operator==(const ModelSource&) const = default;
};

struct DataConfig {
  std::vector<CorpusFile> train;
  std::string eval;         // a file; "": none
  double eval_split = 0;    // share of the training rows held out instead
  std::int64_t seq_len = 0;
  std::string tokenizer;    // "bytes", a tokenizer.json, or "" for the model folder's
  std::string field;        // of a JSONL line; "": text, or messages
  std::string cache;        // folder for tokens of text; "": beside run.output
  Packing packing = Packing::concat;
  bool shuffle = true;
  bool operator==(const DataConfig&) const = default;
};

struct RunOptions {
  std::int64_t steps = 0;
  std::string output;
  std::int64_t save_every = 0;    // 0: no checkpoints
  std::int64_t keep = 0;          // complete checkpoints that stay; 0: all
  bool stop_on_save_error = false;
  bool write_model = true;        // at the end
  std::int64_t eval_every = 0;    // 0: at the end only
  std::int64_t seed = 0;
  std::int64_t log_every = 1;
  double timeout_s = 0;
  std::optional<bool> deterministic;    // none: the device's default
  std::optional<bool> cuda_graphs;      // none: where possible
  std::string device;                   // "cpu", "cuda", or "" to choose
  std::int64_t nproc = 1;
  std::vector<std::string> freeze;    // patterns of parameters that are not trained
  std::int64_t tile_rows = 0;         // tokens that the head works on at once; 0: all
  std::string recompute;              // none, selective, block; "": by checkpoints
  std::optional<std::int64_t> checkpoints;
  std::optional<double> memory_limit;    // GiB
  std::string master_encoding;           // auto, split, fp32
  bool operator==(const RunOptions&) const = default;
};

// global = micro × accumulation × dp. Rows.
struct BatchConfig {
  std::int64_t global = 0, micro = 0, accumulation = 0;
  bool operator==(const BatchConfig&) const = default;
};

// How tokens reach experts that lie on other ranks (docs/experts.md).
enum class ExpertPlan { automatic, exact, dedup, gather };
struct ExpertConfig {
  bool enabled = false;    // DeepSpeed's section; without it experts are cut over tp
  ExpertPlan plan = ExpertPlan::automatic;
  std::string preset;              // "": none
  Json order = Json::array();      // which expert lies where, for all layers, or a list for each; empty: by number
  double balance_rate = 0;         // of the router's correction bias; 0: it stays
  Json router = Json::object();    // what the section says of the router, by key: the model must say the same
  bool operator==(const ExpertConfig&) const = default;
};

// dp = ranks / (tp · sp). Experts use ep · etp of the same ranks.
struct ParallelConfig {
  std::int64_t ranks = 1, dp = 1, tp = 1, sp = 1, ep = 1, etp = 1;
  Json layer_specs = Json::array();    // of DeepSpeed's partition_config; they come before the model's plan
  bool use_default_specs = true;       // the model's plan holds for what they do not match
  bool operator==(const ParallelConfig&) const = default;
};

struct ZeroConfig {
  std::int64_t stage = 0;
  std::int64_t persist = 0;         // stage 3: parameters of at most so many elements stay whole
  std::int64_t shard_ranks = 0;     // states are cut over groups of so many ranks; 0: over all that hold the same
  std::int64_t gather_ranks = 0;    // stage 3: the copy for use is cut over groups of so many ranks; 0: as the states
  std::int64_t gather_bucket = 0, reduce_bucket = 0, update_bucket = 0;    // elements of a collective at most
  bool operator==(const ZeroConfig&) const = default;
};

struct RunConfig {
  ModelSource model;
  DataConfig data;
  RunOptions run;
  BatchConfig batch;
  ParallelConfig parallel;
  ExpertConfig experts;
  double gradient_clipping = 0;    // 0: off
  bool bf16 = false;
  bool bf16_moments = false;
  std::string grad_dtype;    // fp32, bf16; "": fp32
  ZeroConfig zero;
  OptimizerConfig optimizer;
  SchedulerConfig scheduler;
  bool operator==(const RunConfig&) const = default;
};

struct LoadedConfig {
  RunConfig config;
  std::vector<std::string> banner;    // lines for the start of a run: what was chosen, what has no meaning here
};

// `overrides`: "key.path=value", the last one holds. `ranks`: the launcher's number; 0: run.nproc. All throw UserError.
LoadedConfig load_config(const std::string& path, const std::vector<std::string>& overrides = {}, std::int64_t ranks = 0);
LoadedConfig load_deepspeed_config(const std::string& path, const std::string& model, const std::string& data,
                                   const std::vector<std::string>& overrides = {}, std::int64_t ranks = 0);
// The same from a text; `where` is named in errors.
LoadedConfig parse_config(const std::string& text, const std::string& where, const std::vector<std::string>& overrides = {},
                          std::int64_t ranks = 0);

// What is written as run.json: every key in use with its value. Loading it with as many ranks gives an equal RunConfig.
Json resolved(const RunConfig& config);

}    // namespace sheaf
