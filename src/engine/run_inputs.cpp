#include "engine/run_inputs.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/text.h"
#include "comm/host_ops.h"
#include "runtime/device.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

// Before the long work of loading: nothing is written yet.
void check_output_folder(const std::string& folder, bool resume) {
  std::error_code error;
  for (const char* mark : {"run.json", "metrics.jsonl", "model", "checkpoints", "tensorboard"})
    if (!resume && fs::exists(folder + "/" + mark, error))
      user_error("{}: already holds a run (it has {}); go on with --resume, or name another with run.output=FOLDER", folder, mark);
}

SourceModel open_model(const ModelSource& source) {
  SourceModel model;
  if (source.from_scratch()) {
    model.config = read_model_config(source);
    for (const char* key : {"dtype", "torch_dtype"})
      if (model.config.contains(key) && model.config[key].is_string())
        if (const auto dtype = dtype_from_hf(model.config[key].get<std::string>()); dtype && is_float(*dtype)) model.dtype = *dtype;
  } else {
    model.folder.emplace(source.folder);
    model.config = model.folder->config();
    model.dtype = model.folder->main_dtype();
  }
  return model;
}

CorpusOptions corpus_options(const RunConfig& config, const ModelConfig& model, const std::atomic<bool>& stop, bool quiet) {
  return {.seq_len = config.data.seq_len,
          .packing = config.data.packing,
          .tokenizer = config.data.tokenizer,
          .field = config.data.field,
          .model_folder = config.model.folder,
          .vocab = model.vocab,
          .end_of_text = model.eos_id,
          .cache = config.data.cache.empty() ? default_cache(config.run.output) : config.data.cache,
          .held_out = config.data.eval_split,
          .stop = &stop,
          .say = [quiet](const std::string& line) { quiet ? 0 : std::printf("%s\n", line.c_str()), std::fflush(stdout); }};
}

// A line for each key: where two configurations differ, the line is what is shown.
std::string lines_of(const Json& config) {
  std::string lines;
  const Json flat = config.flatten();
  for (const auto& [pointer, value] : flat.items()) {
    std::string path = pointer.substr(1);
    std::replace(path.begin(), path.end(), '/', '.');
    lines += path + " " + value.dump() + "\n";
  }
  return lines;
}

}    // namespace

Json read_model_config(const ModelSource& source) {
  if (!source.from_scratch()) return read_model_config(source.folder);
  return source.config.is_string() ? read_json(source.config.get<std::string>()) : source.config;
}

std::string origin_of(const ModelSource& source) { return source.from_scratch() ? "model.config" : source.folder + "/config.json"; }

RunInputs::RunInputs(const LoadedConfig& loaded, const TrainFlags& train_flags, const std::atomic<bool>& stop_flag, int local_rank)
    : config(loaded.config),
      flags(train_flags),
      stop(stop_flag),
      device(chosen_device(config.run.device)),
      source(open_model(config.model)),
      where(origin_of(config.model)),
      model(parse_model_config(source.config, where)) {
  check_output_folder(config.run.output, flags.resume);
  corpus.emplace(config.data.train, corpus_options(config, model, stop, quiet()));
  if (!config.data.eval.empty()) {
    CorpusOptions options = corpus_options(config, model, stop, quiet());
    options.held_out = 0;
    eval_corpus.emplace(std::vector<CorpusFile>{{config.data.eval}}, options);
  }
  TrainingStep made = training_step(config, source.config, model,
                                    {.documents = corpus->rows().documents(),
                                     .dump_ir = flags.dump_ir,
                                     .where = where,
                                     .device = device,
                                     .gpu = device == DeviceKind::cuda ? device_of_rank(device, local_rank) : -1});
  step = std::move(made.graph), chosen = std::move(made.chosen);
}

void expect_alike(const Rank& rank, const RunInputs& in) {
  Transport& host = *rank.host();
  expect_equal(host, lines_of(resolved(in.config)), "the configuration");
  expect_equal(host, in.corpus->identity().dump(), "the training data");
  // The text has a line a node: it travels only if there is something to show.
  const std::string plan = print(in.step), hash = fmt::format("{:016x}", hash_text(plan));
  if (any_of_ranks(rank, broadcast_text(host, hash, 0, "the plan") != hash, "the plan")) expect_equal(host, plan, "the plan");
}

}    // namespace sheaf
