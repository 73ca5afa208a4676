// The keys of mixtures of experts.
#include <algorithm>
#include <array>
#include <numeric>

#include "base/text.h"
#include "models/families.h"

namespace sheaf {
namespace {

// Which layers have experts.
enum class Routed {
  all,
  sparse_step,    // qwen: every decoder_sparse_step-th, but for mlp_only_layers
  after_first,    // deepseek: from first_k_dense_replace on
  interval,       // ernie: moe_layer_interval within moe_layer_start_index .. moe_layer_end_index
  listed          // llama4: moe_layers, or every interleave_moe_layer_step-th
};
enum class Switch { off, on, by_key };
enum class Shared { none, size, count };    // the key gives its width, or how many experts wide it is

// A family with experts is one row. Defaults are those of HF's config class.
struct MoeFamily {
  std::string_view model_type;
  std::string_view intermediate_key = "moe_intermediate_size";
  Routed routed = Routed::all;
  std::int64_t first_dense = 0;
  Router router = Router::softmax;
  std::string_view router_name = "gate", correction_bias = {};
  bool fp32_logits = false, fp32_router = false, router_bias = false;
  Switch grouped = Switch::off;    // by_key: topk_method
  std::int64_t groups = 1, kept_groups = 1, group_top = 1;
  Switch normalized = Switch::off;    // by_key: norm_topk_prob
  bool normalized_default = false;
  double norm_eps = 0;
  bool norm_floor = false;                    // moe_norm_min
  std::optional<double> weight_scale = {};    // routed_scaling_factor
  bool fp32_weights = false, weighs_input = false;
  ExpertLayout layout = ExpertLayout::out_in;
  bool clamped_swiglu = false;    // and biases: gpt_oss
  Shared shared = Shared::none;
  std::string_view shared_key = {}, shared_name = {};
  std::int64_t shared_default = 0;    // 0: the key must be there
  bool shared_gate = false;
  std::optional<double> aux_coef = {};    // absent: the family has no auxiliary loss
};

constexpr std::array kFamilies = {
    MoeFamily{.model_type = "mixtral",
              .intermediate_key = "intermediate_size",
              .normalized = Switch::on,
              .fp32_weights = true,
              .aux_coef = 0.001},
    MoeFamily{.model_type = "qwen2_moe",
              .routed = Routed::sparse_step,
              .normalized = Switch::by_key,
              .shared = Shared::size,
              .shared_key = "shared_expert_intermediate_size",
              .shared_name = "shared_expert",
              .shared_gate = true,
              .aux_coef = 0.001},
    MoeFamily{.model_type = "qwen3_moe", .routed = Routed::sparse_step, .normalized = Switch::by_key, .aux_coef = 0.001},
    MoeFamily{.model_type = "olmoe", .intermediate_key = "intermediate_size", .normalized = Switch::by_key, .aux_coef = 0.01},
    MoeFamily{.model_type = "deepseek_v2",
              .routed = Routed::after_first,
              .fp32_logits = true,
              .grouped = Switch::by_key,
              .weight_scale = 1.0,
              .fp32_weights = true,
              .shared = Shared::count,
              .shared_key = "n_shared_experts",
              .shared_name = "shared_experts",
              .shared_default = 2},
    MoeFamily{.model_type = "deepseek_v3",
              .routed = Routed::after_first,
              .first_dense = 3,
              .router = Router::sigmoid,
              .correction_bias = "gate.e_score_correction_bias",
              .fp32_logits = true,
              .grouped = Switch::on,
              .groups = 8,
              .kept_groups = 4,
              .group_top = 2,
              .normalized = Switch::by_key,
              .normalized_default = true,
              .norm_eps = 1e-20,
              .weight_scale = 2.5,
              .fp32_weights = true,
              .shared = Shared::count,
              .shared_key = "n_shared_experts",
              .shared_name = "shared_experts",
              .shared_default = 1},
    MoeFamily{.model_type = "glm4_moe",
              .routed = Routed::after_first,
              .first_dense = 1,
              .router = Router::sigmoid,
              .correction_bias = "gate.e_score_correction_bias",
              .fp32_logits = true,
              .grouped = Switch::on,
              .group_top = 2,
              .normalized = Switch::by_key,
              .normalized_default = true,
              .norm_eps = 1e-20,
              .weight_scale = 1.0,
              .fp32_weights = true,
              .shared = Shared::count,
              .shared_key = "n_shared_experts",
              .shared_name = "shared_experts",
              .shared_default = 1},
    MoeFamily{.model_type = "gpt_oss",
              .intermediate_key = "intermediate_size",
              .router = Router::chosen_softmax,
              .router_name = "router",
              .router_bias = true,
              .layout = ExpertLayout::in_pairs,
              .clamped_swiglu = true,
              .aux_coef = 0.001},
    MoeFamily{.model_type = "ernie4_5_moe",
              .routed = Routed::interval,
              .correction_bias = "gate.moe_statics.e_score_correction_bias",
              .fp32_logits = true,
              .fp32_router = true,
              .normalized = Switch::on,
              .norm_floor = true,
              .shared = Shared::count,
              .shared_key = "moe_num_shared_experts",
              .shared_name = "shared_experts",
              .shared_default = 2,
              .aux_coef = 0.001},
    MoeFamily{.model_type = "minimax_m2",
              .intermediate_key = "intermediate_size",
              .router = Router::sigmoid,
              .correction_bias = "e_score_correction_bias",
              .normalized = Switch::on,
              .fp32_weights = true,
              .aux_coef = 0.001},
    MoeFamily{.model_type = "llama4_text",
              .intermediate_key = "intermediate_size",
              .routed = Routed::listed,
              .router = Router::chosen_sigmoid,
              .router_name = "router",
              .weighs_input = true,
              .layout = ExpertLayout::in_halves,
              .shared = Shared::size,
              .shared_key = "intermediate_size",
              .shared_name = "shared_expert"},
};

// A key under any of its names: HF reads them all and writes one or the other.
struct Named {
  std::string key;
  std::int64_t size;
};
Named size_by_names(const ConfigReader& r, std::initializer_list<const char*> names) {
  std::string found;
  for (const char* name : names) {
    if (!r.has(name)) continue;
    if (!found.empty() && r.size(name) != r.size(found))
      r.refuse(name, fmt::format("{} is {}: one of them is wrong", quote(found), r.size(found)));
    found = name;
  }
  if (found.empty())
    user_error("{}: {} is missing, or under another name: {}", r.where(), quote(*names.begin()),
               join(std::vector<std::string>(names.begin() + 1, names.end()), ", "));
  return {found, r.size(found)};
}

// At least 0; null and missing: otherwise.
std::int64_t count(const ConfigReader& r, const std::string& key, std::int64_t otherwise) {
  const std::int64_t value = r.integer(key).value_or(otherwise);
  if (value < 0) r.refuse(key, "at least 0 was wanted");
  return value;
}

std::vector<std::int64_t> layer_list(const ConfigReader& r, const std::string& key, std::size_t layers) {
  std::vector<std::int64_t> out;
  for (const double x : r.numbers(key).value_or(std::vector<double>{})) {
    if (x != static_cast<double>(static_cast<std::int64_t>(x)) || x < 0 || x >= static_cast<double>(layers))
      r.refuse(key, fmt::format("layers from 0 to {} were wanted", layers - 1));
    out.push_back(static_cast<std::int64_t>(x));
  }
  return out;
}
bool contains(const std::vector<std::int64_t>& list, std::int64_t x) { return std::find(list.begin(), list.end(), x) != list.end(); }

void parse_routed_layers(const ConfigReader& r, const MoeFamily& family, std::vector<LayerConfig>& layers) {
  const auto n = static_cast<std::int64_t>(layers.size());
  const auto set = [&](auto&& routed) {
    for (std::int64_t i = 0; i < n; ++i) layers[static_cast<std::size_t>(i)].routed = routed(i);
  };
  switch (family.routed) {
    case Routed::all:
      return set([](std::int64_t) { return true; });
    case Routed::sparse_step: {
      const std::int64_t step = r.size("decoder_sparse_step", 1);
      const auto dense = layer_list(r, "mlp_only_layers", layers.size());
      return set([&](std::int64_t i) { return (i + 1) % step == 0 && !contains(dense, i); });
    }
    case Routed::after_first: {
      const std::int64_t first = count(r, "first_k_dense_replace", family.first_dense);
      return set([&](std::int64_t i) { return i >= first; });
    }
    case Routed::interval: {
      const std::int64_t first = count(r, "moe_layer_start_index", 1), step = r.size("moe_layer_interval", 1);
      const std::int64_t given = r.integer("moe_layer_end_index").value_or(-1), last = given == -1 ? n - 1 : given;
      return set([&](std::int64_t i) { return (i + 1) % step == 0 && i >= first && i <= last; });
    }
    case Routed::listed: {
      const std::int64_t step = r.size("interleave_moe_layer_step", 1);
      const auto listed = layer_list(r, "moe_layers", layers.size());
      return set([&](std::int64_t i) { return r.has("moe_layers") ? contains(listed, i) : (i + 1) % step == 0; });
    }
  }
}

void parse_groups(const ConfigReader& r, const MoeFamily& family, MoeConfig& m) {
  bool grouped = family.grouped == Switch::on;
  if (family.grouped == Switch::by_key) {
    const std::string method = r.text("topk_method").value_or("greedy");
    if (method != "greedy" && method != "group_limited_greedy") r.refuse("topk_method", "supported: greedy, group_limited_greedy");
    grouped = method != "greedy";
  }
  if (!grouped) return;
  const std::int64_t groups = r.size("n_group", family.groups), kept = r.size("topk_group", family.kept_groups);
  if (m.experts % groups != 0)
    user_error("{}: 'n_group' is {}, a divisor of the number of experts ({}) was wanted", r.where(), groups, m.experts);
  if (kept > groups) user_error("{}: 'topk_group' is {}, at most 'n_group' ({}) was wanted", r.where(), kept, groups);
  const std::int64_t in_group = m.experts / groups;
  if (in_group < family.group_top)
    user_error("{}: 'n_group' is {}: {} experts make groups of {}, at least {} were wanted", r.where(), groups, m.experts, in_group,
               family.group_top);
  if (m.top_k > kept * in_group)
    user_error("{}: 'topk_group' is {}: {} groups of {} experts are fewer than the {} that a token goes to", r.where(), kept, kept,
               in_group, m.top_k);
  if (kept < groups) m.groups = groups, m.kept_groups = kept, m.group_top = family.group_top;    // else every expert stays
}

const char* activation_name(Activation activation) {
  switch (activation) {
    case Activation::silu:
      return "silu";
    case Activation::gelu:
      return "gelu";
    case Activation::gelu_tanh:
      return "gelu_tanh";
    case Activation::relu:
      return "relu";
  }
  return "";
}

std::int64_t shared_intermediate(const ConfigReader& r, const MoeFamily& family, const MoeConfig& m) {
  const std::string key(family.shared_key);
  switch (family.shared) {
    case Shared::none:
      return 0;
    case Shared::size:
      return r.size(key);
    case Shared::count:
      return count(r, key, family.shared_default) * m.intermediate;
  }
  return 0;
}

double aux_coef(const ConfigReader& r, const MoeFamily& family) {
  const bool wanted = r.flag("output_router_logits").value_or(false);
  if (wanted && !family.aux_coef) r.refuse("output_router_logits", fmt::format("a {} model has no auxiliary loss", family.model_type));
  return wanted ? r.non_negative("router_aux_loss_coef", *family.aux_coef) : 0;
}

}    // namespace

void parse_moe(const ConfigReader& r, ModelConfig& c) {
  const auto* const family =
      std::find_if(kFamilies.begin(), kFamilies.end(), [&](const MoeFamily& f) { return f.model_type == c.model_type; });
  if (family == kFamilies.end()) return;
  parse_routed_layers(r, *family, c.layers);
  MoeConfig m;
  const Named experts = size_by_names(r, {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"});
  const Named top_k = size_by_names(r, {"num_experts_per_tok", "moe_k"});
  m.experts = experts.size, m.top_k = top_k.size;
  if (m.top_k > m.experts) r.refuse(top_k.key, fmt::format("at most {} ({}) was wanted", quote(experts.key), m.experts));
  m.intermediate = r.size(std::string(family->intermediate_key));
  m.router = family->router;
  m.router_name = family->router_name, m.correction_bias = family->correction_bias;
  m.fp32_logits = family->fp32_logits, m.fp32_router = family->fp32_router, m.router_bias = family->router_bias;
  parse_groups(r, *family, m);
  m.normalized = family->normalized == Switch::on ||
                 (family->normalized == Switch::by_key && r.flag("norm_topk_prob").value_or(family->normalized_default));
  m.norm_eps = family->norm_eps;
  if (family->norm_floor) m.norm_floor = r.non_negative("moe_norm_min", 1e-12);
  if (family->weight_scale) m.weight_scale = r.number("routed_scaling_factor").value_or(*family->weight_scale);
  m.fp32_weights = family->fp32_weights, m.weighs_input = family->weighs_input;
  m.layout = family->layout;
  m.expert_bias = family->clamped_swiglu;
  m.activation = family->clamped_swiglu ? "clamped_swiglu" : activation_name(c.activation);
  m.limit = family->clamped_swiglu ? 7 : 0;
  m.shared_intermediate = shared_intermediate(r, *family, m);
  m.shared_name = family->shared_name, m.shared_gate = family->shared_gate;
  m.aux_coef = aux_coef(r, *family);
  c.moe = m;
}

}    // namespace sheaf
