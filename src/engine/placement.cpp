#include "engine/placement.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/text.h"
#include "engine/experts.h"

namespace sheaf {
namespace {

// What transformers' classes of these families say, and the vocabulary over tp: logits are never whole. Each model has some of these;
// experts lie by their own axes.
std::string built_in_plan() {
  std::string plan;
  const auto add = [&](const char* module, std::initializer_list<const char*> weights, const char* style) {
    for (const char* weight : weights) plan += fmt::format("?layers.*.{}.{} {}; ", module, weight, style);
  };
  add("self_attn", {"q_proj", "k_proj", "v_proj", "q_b_proj", "kv_b_proj"}, "colwise");
  add("self_attn", {"o_proj"}, "rowwise");
  for (const char* mlp : {"mlp", "mlp.shared_expert", "mlp.shared_experts", "feed_forward", "feed_forward.shared_expert"}) {
    add(mlp, {"gate_proj", "up_proj"}, "colwise");
    add(mlp, {"down_proj"}, "rowwise");
  }
  return plan;
}

std::string tp_plan(const Json& config, const ModelConfig& model) {
  std::string plan = built_in_plan();
  if (const auto given = config.find("base_model_tp_plan"); given != config.end() && given->is_object() && !given->empty()) {
    plan.clear();
    for (const auto& [pattern, style] : given->items()) {
      if (!style.is_string()) user_error("config.json: base_model_tp_plan of {} is no text", quote(pattern));
      plan += (plan.empty() ? "" : "; ") + pattern + " " + style.get<std::string>();
    }
  }
  if (plan.find("embed_tokens ") == std::string::npos) plan += "; embed_tokens embedding_rowwise";
  if (!model.tied_head && plan.find("lm_head ") == std::string::npos) plan += "; lm_head colwise_gather_output";
  return plan;
}

// DeepSpeed's layer_specs as entries of a plan. Which piece of a packed tensor lies where (`shape`) and whether an output is gathered
// (`gather_output`) changes no number here: reshards follow from what reads it.
std::string plan_of_specs(const Json& specs, const std::string& model_type) {
  constexpr const char* kWhere = "tensor_parallel.partition_config.layer_specs";
  std::string plan;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const Json& spec = specs[i];
    const auto bad = [&](const std::string& what) { user_error("{}[{}]: {}", kWhere, i, what); };
    if (!spec.is_object()) bad("wanted an object with patterns and partition_type, found " + spec.dump());
    for (const auto& [key, value] : spec.items()) {
      const std::vector<std::string> known = {"patterns",      "partition_type", "shape",      "partition_dim",
                                              "gather_output", "grad_allreduce", "model_types"};
      if (std::find(known.begin(), known.end(), key) == known.end())
        bad(fmt::format("unknown key {}{}", quote(key), did_you_mean(key, known)));
    }
    if (spec.contains("model_types") && spec["model_types"].is_array() && !spec["model_types"].empty() &&
        std::find(spec["model_types"].begin(), spec["model_types"].end(), model_type) == spec["model_types"].end())
      continue;
    const std::string type = spec.value("partition_type", Json("column")).dump();
    const char* style = type == "\"column\"" ? "colwise" : type == "\"row\"" ? "rowwise" : type == "\"skip\"" ? "replicated" : nullptr;
    if (!style) bad(fmt::format("partition_type is {}; wanted \"column\", \"row\" or \"skip\"", type));
    const Json patterns = spec.value("patterns", Json());
    if (!patterns.is_array() || patterns.empty()) bad("patterns is " + patterns.dump() + "; wanted a list of regular expressions");
    for (const Json& pattern : patterns) {
      if (!pattern.is_string() || pattern.get<std::string>().find(';') != std::string::npos)
        bad(fmt::format("pattern {}: wanted a regular expression without ';'", pattern.dump()));
      plan += fmt::format("re:{} {}; ", pattern.get<std::string>(), style);
    }
  }
  return plan;
}

// Where head atoms go from kv heads to the query heads of each: a cut there lets tp and sp use both.
std::int64_t head_cut(const ModelConfig& model, const ParallelConfig& p) {
  const std::int64_t of_tp = std::gcd(model.kv_heads, p.tp);
  if (of_tp < p.tp) return p.tp / of_tp;
  return p.tp * p.sp / std::gcd(model.kv_heads / p.tp, p.sp);
}

void check_degrees(const RunConfig& run, const ModelConfig& model) {
  const ParallelConfig& p = run.parallel;
  const auto fits = [&](const char* axis, std::int64_t degree, const char* what, std::int64_t extent) {
    if (degree > extent)
      user_error("{} {} over {} {}: some ranks would have none; {} of at most {} fits", axis, degree, extent, what, axis, extent);
  };
  fits("tensor_parallel.autotp_size", p.tp, "attention heads (num_attention_heads)", model.heads);
  fits("tensor_parallel.autotp_size", p.tp, "rows of the MLP (intermediate_size)", model.intermediate);
  fits("tensor_parallel.autotp_size", p.tp, "tokens of the vocabulary (vocab_size)", model.vocab);
  fits("sequence_parallel_size", p.sp, "tokens of a row (data.seq_len)", run.data.seq_len);
  const std::int64_t over = p.dp * p.sp;
  for (const auto& [key, size] : {std::pair("zero_optimization.mics_shard_size", run.zero.shard_ranks),
                                  std::pair("zero_optimization.zero_hpz_partition_size", run.zero.gather_ranks)})
    if (size > 0 && over % size != 0)
      user_error("{}: found {}, which does not divide the {} ranks that hold the same parameters ({} / tp {}); take a divisor", key, size,
                 over, p.ranks, p.tp);
}

}    // namespace

void set_placement(Options& options, const RunConfig& run, const Json& config, const ModelConfig& model) {
  const ParallelConfig& p = run.parallel;
  check_experts(run, model);
  options.tile_rows = run.run.tile_rows;
  options.recompute = !run.run.recompute.empty() ? run.run.recompute : run.run.checkpoints ? "block" : "none";
  if (p.ranks == 1) return;
  check_degrees(run, model);
  std::vector<std::int64_t> cuts = {head_cut(model, p)};
  for (const std::int64_t size : {run.zero.shard_ranks, run.zero.gather_ranks})
    if (size > 0) cuts.push_back(p.tp * size);
  const std::vector<Degree> experts = expert_degrees(run, model);
  const Refinement refinement = refine({{"dp", p.dp}, {"sp", p.sp}, {"tp", p.tp}}, experts, cuts);
  options.mesh = print(refinement.mesh);
  options.expert_plan = expert_plan(run, model);
  options.expert_order = expert_order(run, model);
  if (p.tp > 1) {
    options.tp_plan = plan_of_specs(p.layer_specs, model.model_type);
    if (p.use_default_specs) options.tp_plan += tp_plan(config, model);
  }
  options.zero_stage = run.zero.stage;
  options.persist = run.zero.persist;
  options.shard_ranks = run.zero.shard_ranks;
  options.gather_ranks = run.zero.gather_ranks;
  options.gather_bucket = run.zero.gather_bucket;
  options.reduce_bucket = run.zero.reduce_bucket;
  options.update_bucket = run.zero.update_bucket;
}

}    // namespace sheaf
