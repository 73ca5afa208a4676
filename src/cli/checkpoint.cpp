// sheaf checkpoint show | verify | export PATH
#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/export.h"
#include "checkpoint/safetensors.h"
#include "cli/commands.h"
#include "engine/progress_line.h"

namespace sheaf {
namespace {

constexpr const char* kPathHelp =
    "a run's output folder or its checkpoints/ (then the newest complete checkpoint), or one step_XXXXXXXX folder";

struct Total {
  std::int64_t tensors = 0, elements = 0, bytes = 0;
  void add(const Checkpoint::Tensor& tensor) {
    std::int64_t n = 1;
    for (const std::int64_t extent : tensor.shape) n *= extent;
    ++tensors, elements += n, bytes += n * size_bytes(tensor.dtype);
  }
};

std::string meta_text(const Json& meta, const char* key) {
  const auto found = meta.find(key);
  return found == meta.end() ? "(not said)" : found->is_string() ? found->get<std::string>() : found->dump();
}

// How an export has its experts; nothing for a model without.
std::string experts_text(const ModelRecord& model) {
  return has_experts(model.shapes) ? fmt::format(", experts {}", name(model.experts)) : "";
}

// Each is of one rank.
std::size_t num_files(const Checkpoint& checkpoint) {
  std::set<std::string_view> files;
  for (const Checkpoint::Tensor& tensor : checkpoint.tensors())
    for (const Checkpoint::Chunk& chunk : tensor.chunks) files.insert(chunk.file);
  return files.size();
}

Json description(const Checkpoint& checkpoint, const std::map<std::string, Total>& kinds, bool list_tensors) {
  Json out = {{"folder", checkpoint.folder()}};
  for (const char* key : {"step", "committed", "written", "identity"})
    if (const auto found = checkpoint.meta().find(key); found != checkpoint.meta().end()) out[key] = *found;
  if (checkpoint.meta().contains("model")) out["config"] = model_of(checkpoint).config;
  out["files"] = num_files(checkpoint);
  for (const auto& [kind, total] : kinds)
    out["kinds"][kind] = {{"tensors", total.tensors}, {"elements", total.elements}, {"bytes", total.bytes}};
  if (list_tensors)
    for (const Checkpoint::Tensor& tensor : checkpoint.tensors())
      out["tensors"].push_back(
          {{"name", tensor.name}, {"kind", tensor.kind}, {"dtype", std::string(name(tensor.dtype))}, {"shape", tensor.shape}});
  return out;
}

int show(const std::string& path, bool list_tensors, bool json) {
  const Checkpoint checkpoint(find_checkpoint(path));
  std::map<std::string, Total> kinds;
  Total all;
  for (const Checkpoint::Tensor& tensor : checkpoint.tensors()) kinds[tensor.kind].add(tensor), all.add(tensor);
  if (json) {
    std::printf("%s\n", description(checkpoint, kinds, list_tensors).dump(2).c_str());
    return 0;
  }
  const Json& meta = checkpoint.meta();
  std::printf("%s\n", checkpoint.folder().c_str());
  std::printf("step %s (%s committed), written %s\n", meta_text(meta, "step").c_str(), meta_text(meta, "committed").c_str(),
              meta_text(meta, "written").c_str());
  std::vector<std::string> parts;
  if (meta.contains("identity"))
    for (const auto& [key, value] : meta["identity"].items())
      parts.push_back(fmt::format("{} {}", key, meta_text(meta["identity"], key.c_str())));
  std::printf("run: %s\n", parts.empty() ? "(not said)" : join(parts, ", ").c_str());
  if (meta.contains("model")) {
    const ModelRecord model = model_of(checkpoint);
    fmt::print("model: {}, exported in {}{}\n", meta_text(model.config, "model_type"), name(model.dtype), experts_text(model));
  }
  const std::size_t files = num_files(checkpoint);
  std::printf("in %zu file%s, one a rank\n", files, files == 1 ? "" : "s");
  std::vector<std::vector<std::string>> rows = {{"kind", "tensors", "elements", "bytes"}};
  const auto add_row = [&](const std::string& kind, const Total& total) {
    rows.push_back({kind, std::to_string(total.tensors), human_count(static_cast<double>(total.elements)),
                    human_bytes(static_cast<double>(total.bytes))});
  };
  for (const auto& [kind, total] : kinds) add_row(kind, total);
  add_row("all", all);
  std::printf("\n%s", table(rows).c_str());
  if (!list_tensors) return 0;
  rows = {{"tensor", "kind", "dtype", "shape", "chunks"}};
  for (const Checkpoint::Tensor& tensor : checkpoint.tensors())
    rows.push_back(
        {tensor.name, tensor.kind, std::string(name(tensor.dtype)), shape_text(tensor.shape), std::to_string(tensor.chunks.size())});
  std::printf("\n%s", table(rows).c_str());
  return 0;
}

// Nothing in a pipe.
class ByteProgress {
 public:
  explicit ByteProgress(std::string verb) : verb_(std::move(verb)) {}
  void operator()(std::int64_t done, std::int64_t all) {
    if (!line_.due()) return;
    const double rate = static_cast<double>(done) / line_.seconds();
    line_.show(fmt::format("{} {} of {}, {:.0f} MB/s, eta {}", verb_, human_bytes(static_cast<double>(done)),
                           human_bytes(static_cast<double>(all)), rate * 1e-6,
                           human_time(static_cast<double>(all - done) / std::max(rate, 1.0))));
  }
  double seconds() const { return line_.seconds(); }

 private:
  std::string verb_;
  ProgressLine line_{ProgressLine::AtEnd::goes, ProgressLine::InPipe::nothing};
};

int verify(const std::string& path) {
  const Checkpoint checkpoint(find_checkpoint(path));
  ByteProgress progress("verified");
  checkpoint.verify([&](std::int64_t done, std::int64_t all) { progress(done, all); });
  std::size_t chunks = 0;
  for (const Checkpoint::Tensor& tensor : checkpoint.tensors()) chunks += tensor.chunks.size();
  const double seconds = progress.seconds();
  const std::size_t files = num_files(checkpoint);
  std::printf("%s: all %zu chunks in %zu file%s are as they were written: %s in %s, %.0f MB/s\n", checkpoint.folder().c_str(), chunks,
              files, files == 1 ? "" : "s", human_bytes(static_cast<double>(checkpoint.bytes())).c_str(), human_time(seconds).c_str(),
              static_cast<double>(checkpoint.bytes()) * 1e-6 / std::max(seconds, 1e-9));
  return 0;
}

// Beside the checkpoint; for one of a run, in the run's output folder.
std::string default_output(const std::string& checkpoint) {
  std::filesystem::path folder = std::filesystem::absolute(checkpoint).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  std::filesystem::path parent = folder.parent_path();
  if (parent.filename() == "checkpoints") parent = parent.parent_path();
  return parent / ("model_" + folder.filename().string());
}

int export_model(const std::string& path, const std::string& output, const std::string& dtype, const std::string& experts) {
  const Checkpoint checkpoint(find_checkpoint(path));
  const std::string folder = output.empty() ? default_output(checkpoint.folder()) : output;
  ByteProgress progress("exported");
  ExportOptions options{.progress = [&](std::int64_t done, std::int64_t all) { progress(done, all); }};
  if (!dtype.empty()) options.dtype = dtype_from_name(dtype);
  if (!experts.empty()) options.experts = experts_from_name(experts);
  export_checkpoint(checkpoint, folder, options);
  ModelRecord model = model_of(checkpoint);
  model.dtype = options.dtype.value_or(model.dtype), model.experts = options.experts.value_or(model.experts);
  fmt::print("{}: the model after step {}, in {}{}\n", folder, meta_text(checkpoint.meta(), "step"), name(model.dtype),
             experts_text(model));
  return 0;
}

}    // namespace

Action checkpoint_command(CLI::App& app) {
  struct Arguments {
    std::string path, output, dtype, experts;
    bool tensors = false, json = false;
  };
  auto a = std::make_shared<Arguments>();
  app.require_subcommand(1);
  CLI::App* shown = app.add_subcommand("show", "what a checkpoint holds");
  shown->add_flag("--tensors", a->tensors, "list every tensor");
  shown->add_flag("--json", a->json, "as JSON");
  CLI::App* verified = app.add_subcommand("verify", "read everything and compare it with its checksums");
  CLI::App* exported = app.add_subcommand("export", "write the model as a HuggingFace folder");
  exported->add_option("--output", a->output, "the folder; default: model_step_XXXXXXXX in the run's output folder")->type_name("DIR");
  exported->add_option("--dtype", a->dtype, "of the weights; default: as in the model that the run began with")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}));
  exported->add_option("--experts", a->experts, "one tensor for all of a layer, or one a matrix; default: as in that model")
      ->check(CLI::IsMember({"fused", "separate"}));
  for (CLI::App* sub : {shown, verified, exported}) sub->add_option("path", a->path, kPathHelp)->required()->type_name("PATH");
  return [a, shown, verified]() -> int {
    if (shown->parsed()) return show(a->path, a->tensors, a->json);
    if (verified->parsed()) return verify(a->path);
    return export_model(a->path, a->output, a->dtype, a->experts);
  };
}

}    // namespace sheaf
