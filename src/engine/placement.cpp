#include "engine/placement.h"

#include <numeric>

#include "base/error.h"
#include "base/text.h"
#include "mesh/refine.h"

namespace sheaf {
namespace {

// What transformers' classes of these families say, and the vocabulary over tp: logits are never whole.
constexpr const char* kPlan =
    "layers.*.self_attn.q_proj colwise; layers.*.self_attn.k_proj colwise; layers.*.self_attn.v_proj colwise; "
    "layers.*.self_attn.o_proj rowwise; layers.*.mlp.gate_proj colwise; layers.*.mlp.up_proj colwise; layers.*.mlp.down_proj rowwise";

std::string tp_plan(const Json& config, const DenseConfig& model) {
  std::string plan = kPlan;
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

// Where head atoms go from kv heads to the query heads of each: a cut there lets tp and sp use both.
std::int64_t head_cut(const DenseConfig& model, const ParallelConfig& p) {
  const std::int64_t of_tp = std::gcd(model.kv_heads, p.tp);
  if (of_tp < p.tp) return p.tp / of_tp;
  return p.tp * p.sp / std::gcd(model.kv_heads / p.tp, p.sp);
}

void check_degrees(const RunConfig& run, const DenseConfig& model) {
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
      user_error("{}: found {}, which does not divide the {} ranks that hold the same parameters ({} / tp {}); take a divisor", key, size, over,
                 p.ranks, p.tp);
}

}    // namespace

void set_placement(Options& options, const RunConfig& run, const Json& config, const DenseConfig& model) {
  const ParallelConfig& p = run.parallel;
  if (p.ranks == 1) return;
  check_degrees(run, model);
  std::vector<std::int64_t> cuts = {head_cut(model, p)};
  for (const std::int64_t size : {run.zero.shard_ranks, run.zero.gather_ranks})
    if (size > 0) cuts.push_back(p.tp * size);
  options.mesh = print(refine({{"dp", p.dp}, {"sp", p.sp}, {"tp", p.tp}}, {}, cuts).mesh);
  if (p.tp > 1) options.tp_plan = run.parallel.tp_plan.empty() ? tp_plan(config, model) : run.parallel.tp_plan;
  options.zero_stage = run.zero.stage;
  options.persist = run.zero.persist;
  options.shard_ranks = run.zero.shard_ranks;
  options.gather_ranks = run.zero.gather_ranks;
}

}    // namespace sheaf
