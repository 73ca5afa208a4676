#include "checkpoint/expert_names.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

// Families with a tensor for every matrix of an expert on the Hub.
struct HubNames {
  std::string_view model_type;
  std::string_view gate, up, down;
  std::string_view in_memory, on_hub;    // part of a name: what replaces it there
};
constexpr HubNames mixtral(std::string_view model_type) { return {model_type, "w1", "w3", "w2", ".mlp.", ".block_sparse_moe."}; }
constexpr HubNames qwen(std::string_view model_type, std::string_view in_memory = "", std::string_view on_hub = "") {
  return {model_type, "gate_proj", "up_proj", "down_proj", in_memory, on_hub};
}
constexpr std::array kHub = {
    mixtral("mixtral"),  mixtral("minimax_m2"), qwen("qwen2_moe"),
    qwen("qwen3_moe"),   qwen("olmoe"),         qwen("deepseek_v2"),
    qwen("deepseek_v3"), qwen("glm4_moe"),      qwen("ernie4_5_moe", ".mlp.gate.moe_statics.", ".mlp.moe_statics."),
};
constexpr std::string_view kMxfp4Family = "gpt_oss";
constexpr std::int64_t kMxfp4Block = 32;    // numbers of a scale

constexpr std::string_view kGateUp = ".experts.gate_up_proj", kDown = ".experts.down_proj";

const HubNames* hub_names(std::string_view model_type) {
  const auto* const found = std::find_if(kHub.begin(), kHub.end(), [&](const HubNames& names) { return names.model_type == model_type; });
  return found == kHub.end() ? nullptr : found;
}

bool is_expert(const NamedShape& weight) {
  const auto& shape = weight.shape;
  if (shape.size() != 3 || std::any_of(shape.begin(), shape.end(), [](std::int64_t extent) { return extent <= 0; })) return false;
  return weight.name.ends_with(kDown) || weight.name.ends_with(kGateUp);
}

std::string hub_name(const HubNames& names, std::string name) {
  const std::size_t at = names.in_memory.empty() ? std::string::npos : name.find(names.in_memory);
  return at == std::string::npos ? name : name.replace(at, names.in_memory.size(), names.on_hub);
}

std::vector<NamedShape> separate(const HubNames& names, const NamedShape& weight) {
  const std::string name = hub_name(names, weight.name);
  const bool down = weight.name.ends_with(kDown);
  if (!is_expert(weight) || (!down && weight.shape[1] % 2 != 0)) return {{name, weight.shape}};
  const std::string prefix = name.substr(0, name.rfind('.') + 1);
  const std::vector<std::int64_t> matrix = {down ? weight.shape[1] : weight.shape[1] / 2, weight.shape[2]};
  std::vector<NamedShape> out;
  for (std::int64_t e = 0; e < weight.shape[0]; ++e)
    for (const std::string_view part : down ? std::vector{names.down} : std::vector{names.gate, names.up})
      out.push_back({fmt::format("{}{}.{}.weight", prefix, e, part), matrix});
  return out;
}

// transformers' _keep_in_fp32_modules_strict; the biases of minimax_m2, which it rounds, as well: they are made of counts.
bool is_kept_in_fp32(std::string_view model_type, std::string_view name) {
  return name.ends_with(".e_score_correction_bias") || (model_type == "ernie4_5_moe" && name.ends_with(".mlp.gate.weight"));
}

}    // namespace

std::string_view name(Experts experts) {
  constexpr std::array<std::string_view, 4> kNames = {"separate", "fused", "transposed", "mxfp4"};
  return kNames[static_cast<std::size_t>(experts)];
}

std::optional<Experts> experts_from_name(std::string_view text) {
  for (const Experts experts : {Experts::separate, Experts::fused, Experts::transposed, Experts::mxfp4})
    if (name(experts) == text) return experts;
  return std::nullopt;
}

std::vector<Experts> experts_of(std::string_view model_type) {
  std::vector<Experts> out = {Experts::fused, Experts::transposed};
  if (hub_names(model_type)) out.insert(out.begin(), Experts::separate);
  if (model_type == kMxfp4Family) out.push_back(Experts::mxfp4);
  return out;
}

Experts written_experts(Experts read, std::string_view model_type) {
  return read == Experts::fused ? read : experts_of(model_type).front();
}

bool has_experts(std::span<const NamedShape> weights) { return std::any_of(weights.begin(), weights.end(), is_expert); }

Experts find_experts(const SafetensorsFolder& folder, std::string_view model_type, std::span<const NamedShape> weights) {
  // A name counts, its shape counts again: so that a folder with a mistake in it is read as what it nearly is.
  Experts best = experts_of(model_type).front();
  std::int64_t most = 0;
  for (const Experts experts : experts_of(model_type)) {
    std::int64_t hits = 0;
    for (const NamedShape& weight : weights)
      for (const NamedShape& tensor : file_tensors(model_type, experts, weight).tensors)
        if (const StoredTensor* found = folder.find(tensor.name)) hits += found->shape == tensor.shape ? 2 : 1;
    if (hits > most) most = hits, best = experts;
  }
  return best;
}

FileTensors file_tensors(std::string_view model_type, Experts experts, const NamedShape& weight) {
  if (experts == Experts::separate) {
    const HubNames* const names = hub_names(model_type);
    SHEAF_CHECK(names, "a {} model has no separate experts", model_type);
    return {experts, separate(*names, weight)};
  }
  const auto& shape = weight.shape;
  if (experts == Experts::fused || !is_expert(weight)) return {Experts::fused, {weight}};
  if (experts == Experts::transposed) return {experts, {{weight.name, {shape[0], shape[2], shape[1]}}}};
  if (shape[1] % kMxfp4Block != 0) return {Experts::fused, {weight}};
  const std::int64_t e = shape[0], rows = shape[2], blocks = shape[1] / kMxfp4Block;
  return {experts, {{weight.name + "_blocks", {e, rows, blocks, kMxfp4Block / 2}}, {weight.name + "_scales", {e, rows, blocks}}}};
}

std::vector<WeightPart> parts_to_write(std::string_view model_type, Experts experts, std::span<const NamedShape> weights, DType dtype) {
  std::vector<WeightPart> out;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const DType kept = is_kept_in_fp32(model_type, weights[i].name) ? DType::fp32 : dtype;
    const FileTensors files = file_tensors(model_type, experts, weights[i]);
    SHEAF_CHECK(files.form == Experts::separate || files.form == Experts::fused, "{} experts are only read", name(experts));
    std::int64_t first = 0;
    for (const NamedShape& tensor : files.tensors) {
      out.push_back({{tensor.name, kept, tensor.shape}, i, first});
      first += checked_bytes(kept, tensor.shape, tensor.name) / size_bytes(kept);
    }
  }
  return out;
}

std::vector<TensorToWrite> tensors_of(std::span<const WeightPart> parts) {
  std::vector<TensorToWrite> out;
  for (const WeightPart& part : parts) out.push_back(part.tensor);
  return out;
}

}    // namespace sheaf
