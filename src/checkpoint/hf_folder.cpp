#include "checkpoint/hf_folder.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {

Json read_model_config(const std::string& folder) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) user_error("{}: no such folder; a HuggingFace model folder was wanted", folder);
  const std::string path = std::filesystem::path(folder) / "config.json";
  if (!std::filesystem::exists(path, ignored)) user_error("{}: no config.json in it; a HuggingFace model folder was wanted", folder);
  Json config = read_json(path);
  if (!config.is_object()) user_error("{}: is {}, an object was wanted", path, json_type(config));
  if (const auto found = config.find("quantization_config"); found != config.end() && found->is_object()) {
    const std::string method = found->contains("quant_method") ? found->at("quant_method").dump() : "(none)";
    if (method != R"("mxfp4")")
      user_error("{}: 'quantization_config' has quant_method {}, which is not read; make a folder in bf16 of it first", path, method);
    config.erase("quantization_config");    // what is read is numbers, and what is written from them
  }
  return config;
}

namespace {

DType most_of(std::span<const StoredTensor> tensors) {
  std::map<DType, std::int64_t> counts;
  for (const StoredTensor& tensor : tensors)
    if (is_float(tensor.dtype)) counts[tensor.dtype] += tensor.count();
  const auto most = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == counts.end() ? DType::fp32 : most->first;
}

}    // namespace

HfFolder::HfFolder(const std::string& folder)
    : config_(read_model_config(folder)), weights_(folder), main_dtype_(most_of(weights_.tensors())) {}

bool predicts_further(std::string_view name, const Json& config) {
  if (config.contains("model_type") && config["model_type"] == "ernie4_5_moe" && name.starts_with("model.mtp")) return true;
  const auto integer = [&](const char* key) {
    return config.contains(key) && config[key].is_number_integer() ? config[key].get<std::int64_t>() : 0;
  };
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return false;
  std::int64_t layer = -1;
  std::from_chars(name.data() + kLayers.size(), name.data() + name.size(), layer);
  const std::int64_t behind = layer - integer("num_hidden_layers");
  return behind >= 0 && behind < std::max(integer("num_nextn_predict_layers"), integer("num_mtp_layers"));
}

bool is_left_out(std::string_view name, const Json& config, bool tied_head) {
  return name.ends_with("rotary_emb.inv_freq") || (tied_head && name == "lm_head.weight") || predicts_further(name, config);
}

void check_tensors(const SafetensorsFolder& folder, std::span<const NamedShape> expected,
                   const std::function<bool(std::string_view)>& ignored) {
  std::array<std::vector<std::string>, 3> problems;    // missing, misshapen, extra
  std::map<std::string_view, bool> wanted;
  for (const NamedShape& tensor : expected) {
    wanted[tensor.name] = true;
    const StoredTensor* found = folder.find(tensor.name);
    if (!found) {
      problems[0].push_back(fmt::format("  missing: {} {}", tensor.name, shape_text(tensor.shape)));
    } else if (found->shape != tensor.shape) {
      problems[1].push_back(
          fmt::format("  wrong shape: {} is {}, the model wants {}", tensor.name, shape_text(found->shape), shape_text(tensor.shape)));
    }
  }
  for (const StoredTensor& tensor : folder.tensors())
    if (!wanted.contains(tensor.name) && !(ignored && ignored(tensor.name)))
      problems[2].push_back(fmt::format("  not in the model: {} {}", tensor.name, shape_text(tensor.shape)));

  const std::size_t total = problems[0].size() + problems[1].size() + problems[2].size();
  if (total == 0) return;
  // 8 lines: this head, up to 7 problems, or 6 and how many more. Each kind gets its share before one takes what is left.
  const std::size_t room = total <= 7 ? 7 : 6;
  std::array<std::size_t, 3> shown{};
  for (std::size_t left = room, before = left + 1; left > 0 && left < before;) {
    before = left;
    for (std::size_t kind = 0; kind < 3; ++kind)
      if (left > 0 && shown[kind] < problems[kind].size()) ++shown[kind], --left;
  }
  std::vector<std::string> lines = {fmt::format("{}: the weights do not fit the model: {} missing, {} of wrong shape, {} not in the model",
                                                folder.folder(), problems[0].size(), problems[1].size(), problems[2].size())};
  for (std::size_t kind = 0; kind < 3; ++kind)
    lines.insert(lines.end(), problems[kind].begin(), problems[kind].begin() + static_cast<std::ptrdiff_t>(shown[kind]));
  if (total > room) lines.push_back(fmt::format("  and {} more", total - room));
  throw UserError(join(lines, "\n"));
}

}    // namespace sheaf
