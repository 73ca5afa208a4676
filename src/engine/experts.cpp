#include "engine/experts.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

// DeepSpeed's presets and the models that they are of.
const std::map<std::string, std::vector<std::string>> kPresets = {{"mixtral", {"mixtral"}},
                                                                  {"qwen3_moe", {"qwen3_moe", "qwen2_moe"}},
                                                                  {"qwen3_5_moe", {"qwen3_5_moe_text"}},
                                                                  {"deepseek_v2", {"deepseek_v2"}},
                                                                  {"deepseek_v3", {"deepseek_v3"}}};

void check_preset(const std::string& preset, const std::string& model_type) {
  if (preset.empty()) return;
  std::vector<std::string> names, fitting;
  for (const auto& [name, types] : kPresets) {
    names.push_back(name);
    if (std::find(types.begin(), types.end(), model_type) != types.end()) fitting.push_back(name);
  }
  const auto found = kPresets.find(preset);
  if (found == kPresets.end())
    user_error("expert_parallel.preset_model: no preset {}{}; none is needed", quote(preset), did_you_mean(preset, names));
  if (fitting.empty() || fitting[0] != preset)
    user_error("expert_parallel.preset_model: {} is for {} models, this one is {}; {}", quote(preset), join(found->second, " and "),
               model_type, fitting.empty() ? "leave it out" : "leave it out, or take " + quote(fitting[0]));
}

// What the model has, in the words of the section's keys.
Json router_of(const MoeConfig& m) {
  const bool sigmoid = m.router == Router::sigmoid || m.router == Router::chosen_sigmoid;
  return {{"route_norm", m.normalized || m.router == Router::chosen_softmax},
          {"route_scale", m.weight_scale},
          {"score_apply", m.weighs_input ? "pre" : "post"},
          {"score_func", sigmoid ? "sigmoid" : "softmax"},
          {"top_k", m.top_k},
          {"num_expert_groups", m.groups},
          {"num_limited_groups", m.kept_groups},
          {"routed_scaling_factor", m.weight_scale},
          {"expert_activation", m.activation}};
}

}    // namespace

void check_experts(const RunConfig& run, const ModelConfig& model) {
  const ParallelConfig& p = run.parallel;
  if (!model.moe) {
    if (run.experts.enabled)
      user_error("expert_parallel.enabled is true, but a {} model has no experts; leave the section out", model.model_type);
    return;
  }
  const MoeConfig& m = *model.moe;
  if (p.ep > m.experts)
    user_error("expert_parallel.autoep_size {} over {} experts: some ranks would have none; at most {} fits", p.ep, m.experts, m.experts);
  if (p.etp > m.intermediate)
    user_error("expert_parallel.expert_tensor_parallel_size {} over the {} inner channels of an expert; at most {} fits", p.etp,
               m.intermediate, m.intermediate);
  check_preset(run.experts.preset, model.model_type);
  const Json own = router_of(m);
  for (const auto& [key, value] : run.experts.router.items()) {
    if (value == "auto" || value == own.at(key)) continue;
    user_error("expert_parallel.{}: found {}, but the router of this {} model has {}; leave it out", key, value.dump(), model.model_type,
               own.at(key).dump());
  }
  if (run.experts.balance_rate > 0 && m.correction_bias.empty())
    user_error("expert_parallel.load_balance_coeff: found {}, but the router of a {} model has no correction bias; leave it out",
               run.experts.balance_rate, model.model_type);
}

std::vector<Degree> expert_degrees(const RunConfig& run, const ModelConfig& model) {
  const ParallelConfig& p = run.parallel;
  if (!model.moe) return {};
  const std::int64_t etp = run.experts.enabled ? p.etp : std::min(p.tp, model.moe->intermediate);
  if (p.ranks % (p.ep * etp) != 0) return {{"edp", p.ranks}, {"ep", 1}, {"etp", 1}};
  return {{"edp", p.ranks / (p.ep * etp)}, {"ep", p.ep}, {"etp", etp}};
}

std::string expert_order(const RunConfig& run, const ModelConfig& model) {
  const Json& given = run.experts.order;
  if (given.empty() || !model.moe) return "";
  const Json layers = given[0].is_array() ? given : Json::array({given});
  const std::int64_t routed = model.routed_layers(), experts = model.moe->experts;
  if (given[0].is_array() && std::ssize(layers) != routed)
    user_error("run.expert_order: found {} lists, wanted one for each of the {} layers with experts, or one for all", layers.size(),
               routed);
  std::string text;
  for (const Json& layer : layers) {
    std::vector<bool> seen(static_cast<std::size_t>(experts));
    std::vector<std::string> numbers;
    for (const Json& number : layer) {
      const bool valid = number.is_number_integer() && number >= 0 && number < experts && !seen[number.get<std::size_t>()];
      if (!valid) user_error("run.expert_order: found {}; wanted each of the numbers 0 to {} once", layer.dump(), experts - 1);
      seen[number.get<std::size_t>()] = true;
      numbers.push_back(number.dump());
    }
    if (std::ssize(numbers) != experts) user_error("run.expert_order: found {} numbers, the model has {} experts", numbers.size(), experts);
    text += (text.empty() ? "" : "; ") + join(numbers, " ");
  }
  return text;
}

std::string expert_plan(const RunConfig& run, const ModelConfig& model) {
  constexpr const char* kNames[] = {"", "exact", "dedup", "gather"};
  if (run.experts.plan != ExpertPlan::automatic || !model.moe)
    return model.moe ? kNames[static_cast<std::size_t>(run.experts.plan)] : "exact";
  const auto ep = static_cast<double>(run.parallel.ep), k = static_cast<double>(model.moe->top_k);
  // Rows that a token sends to other ranks: one each; one per choice; one per rank that has at least one of its choices.
  const double gather = ep - 1, exact = k * (ep - 1) / ep, dedup = (ep - 1) * (1 - std::pow(1 - 1 / ep, k));
  const double enough = 1.1 * std::min({gather, exact, dedup});
  return gather <= enough ? "gather" : exact <= enough ? "exact" : "dedup";
}

}    // namespace sheaf
