#include "models/random_step.h"

#include "base/text.h"

namespace sheaf::testing {
namespace {

bool has_experts(const Json& config) { return config.at("model_type") == "qwen3_moe" || config.at("model_type") == "mixtral"; }

Json random_model(Dice& dice) {
  const std::string family = dice.one_of<std::string>({"llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "mixtral"});
  const std::int64_t kv_heads = dice.one_of<std::int64_t>({1, 2, 2, 3, 4, 5}), per_kv = dice.one_of<std::int64_t>({1, 1, 2, 3, 4});
  const std::int64_t layers = 1 + dice.chance(15);
  Json config = {{"model_type", family},
                 {"vocab_size", 5 + dice.below(16)},
                 {"hidden_size", 1 + dice.below(12)},
                 {"intermediate_size", 1 + dice.below(12)},
                 {"num_hidden_layers", layers},
                 {"num_attention_heads", kv_heads * per_kv},
                 {"num_key_value_heads", kv_heads},
                 {"head_dim", 2 * (1 + dice.below(3))},
                 {"max_position_embeddings", 64},
                 {"tie_word_embeddings", dice.chance(40)},
                 {"hidden_act", dice.one_of<std::string>({"silu", "gelu", "relu"})}};
  if (has_experts(config)) {
    const std::int64_t experts = 1 + dice.below(7);
    config.update({{"num_experts", experts},
                   {"num_experts_per_tok", 1 + dice.below(std::min<std::int64_t>(experts, 3))},
                   {"moe_intermediate_size", 1 + dice.below(8)},
                   {"norm_topk_prob", dice.chance(50)},
                   {"output_router_logits", dice.chance(50)}});
    if (family == "qwen3_moe" && layers == 2 && dice.chance(40)) config["mlp_only_layers"] = {0};
  }
  if (family == "llama" || family == "qwen3") config["attention_bias"] = dice.chance(40);
  if (family == "llama") config["mlp_bias"] = dice.chance(30);
  if (family == "mistral") config["sliding_window"] = 1 + dice.below(6);
  if ((family == "qwen2" || family == "qwen3") && dice.chance(50))
    config.update({{"use_sliding_window", true}, {"sliding_window", 3}, {"max_window_layers", layers - 1}});
  if (dice.chance(20)) config["pad_token_id"] = 1;
  return config;
}

// Axes dp, sp, tp, now and then a fourth that nothing names, so that everything is replicated over it; an axis may be of two atoms.
// Experts are cut over any of the atoms that cut tokens.
std::string random_mesh(Dice& dice, std::int64_t max_ranks, bool experts) {
  std::vector<std::string> names = {"dp", "sp", "tp"};
  if (dice.chance(15)) names.emplace_back("other");
  std::map<std::string, std::vector<std::int64_t>> sizes;    // of an axis: its atoms, major to minor
  std::int64_t ranks = 1;
  while (ranks == 1)
    for (const std::string& name : names) {
      const auto atoms = dice.one_of<std::vector<std::int64_t>>({{}, {}, {2}, {2}, {2}, {3}, {4}, {2, 2}, {3, 2}, {2, 3}, {5}});
      std::int64_t size = 1;
      for (const std::int64_t a : atoms) size *= a;
      if (ranks * size > max_ranks || !sizes[name].empty()) continue;
      sizes[name] = atoms;
      ranks *= size;
    }
  // Usually tp is the fastest link; any order is right.
  std::vector<std::string> order = names;
  if (dice.chance(30)) std::rotate(order.begin(), order.begin() + 1 + dice.below(2), order.end());
  std::string atoms = "mesh", axes = "    axes";
  std::map<std::string, std::vector<std::string>> of_experts = {{"edp", {}}, {"ep", {}}, {"etp", {}}};
  std::int64_t left = 0;
  for (const std::string& name : order) left += static_cast<std::int64_t>(sizes[name].size());
  for (const std::string& name : order) {
    std::vector<std::string> of;
    for (const std::int64_t size : sizes[name]) {
      of.push_back(fmt::format("a{}", --left));
      atoms += fmt::format(" {}={}", of.back(), size);
      if (name != "other") of_experts[dice.one_of<std::string>({"edp", "ep", "ep", "etp"})].push_back(of.back());
    }
    axes += fmt::format(" {}={}", name, of.empty() ? "." : join(of, "."));
  }
  if (experts && dice.chance(85))
    for (const auto& [name, of] : of_experts) axes += fmt::format(" {}={}", name, of.empty() ? "." : join(of, "."));
  return atoms + axes;
}

// The plan of these families with entries left out or changed, and some that nobody would write.
std::string random_plan(Dice& dice, const Json& config) {
  const auto style = [&] { return dice.one_of<std::string>({"colwise", "rowwise", "replicated", "colwise_rep", "rowwise_rep"}); };
  std::vector<std::string> plan;
  const bool usual = dice.chance(35);
  const auto entry = [&](const std::string& pattern, const std::string& wanted) {
    if (!usual && dice.chance(15)) return;
    if (has_experts(config)) {    // an MLP may be experts
      plan.push_back("?" + pattern + " " + (!usual && dice.chance(25) ? style() : wanted));
      return;
    }
    const std::string then = !usual && dice.chance(25) ? style() : wanted;
    // Of two layers one may have a plan of its own: the first entry that matches holds.
    if (const std::size_t star = pattern.find('*');
        !usual && star != std::string::npos && config.at("num_hidden_layers") == 2 && dice.chance(30))
      plan.push_back(fmt::format("{}0{} {}", pattern.substr(0, star), pattern.substr(star + 1), style()));
    plan.push_back(pattern + " " + then);
  };
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) entry(fmt::format("layers.*.self_attn.{}", name), "colwise");
  entry("layers.*.self_attn.o_proj", "rowwise");
  entry("layers.*.mlp.gate_proj", "colwise");
  entry("layers.*.mlp.up_proj", "colwise");
  entry("layers.*.mlp.down_proj", "rowwise");
  entry("embed_tokens", "embedding_rowwise");
  if (!config.at("tie_word_embeddings")) entry("lm_head", "colwise_gather_output");
  if (!usual && dice.chance(15)) plan.emplace_back("layers.*.input_layernorm colwise");
  if (!usual && dice.chance(15)) plan.emplace_back("norm colwise");
  if (!usual && config.at("model_type") == "qwen3" && dice.chance(20)) plan.emplace_back("layers.*.self_attn.k_norm colwise");
  return join(plan, "; ");
}

// Sizes of groups that the storage suffix can be cut to: 0 is all of it.
std::int64_t random_group(Dice& dice, const std::string& mesh_text) {
  const Mesh mesh = parse_mesh(mesh_text);
  std::vector<std::int64_t> sizes = {0, 0, 1};
  for (const char* axis : {"sp", "dp"})
    for (auto atom = mesh.axis(axis).rbegin(); atom != mesh.axis(axis).rend(); ++atom)
      sizes.push_back(std::max<std::int64_t>(1, sizes.back()) * mesh.atoms[*atom].size);
  return dice.one_of(sizes);
}

Graph placed(const RandomStep& step, Options options, bool rewritten = false) {
  std::vector<Pass> passes = training_passes();
  std::erase_if(passes, [&](const Pass& pass) {
    return pass.name == "flatten" ||
           (!rewritten && (pass.name == "fuse" || pass.name == "join_products" || pass.name == "narrow_gradients"));
  });
  if (!rewritten) options.tile_rows = 0, options.recompute = "none";
  return RunPasses{}(build_model(step.config, step.shape, step.compute), passes, options);
}

}    // namespace

RandomStep random_step(std::uint64_t seed, std::int64_t max_ranks) {
  Dice dice(seed);
  RandomStep step{.seed = seed, .config = random_model(dice), .shape = {}, .options = {}};
  step.shape = {.rows = 1 + dice.below(5), .seq_len = 1 + dice.below(7), .documents = dice.chance(25) ? 1 + dice.below(3) : 0};
  step.compute = dice.chance(40) ? DType::bf16 : DType::fp32;
  Options& o = step.options;
  o.num_micro_batches = dice.one_of<std::int64_t>({1, 1, 2, 3});
  o.mesh = random_mesh(dice, max_ranks, has_experts(step.config));
  o.expert_plan = dice.one_of<std::string>({"exact", "dedup", "gather"});
  o.tp_plan = random_plan(dice, step.config);
  o.tile_rows = dice.one_of<std::int64_t>({0, 1, 2, 3});
  o.recompute = dice.one_of<std::string>({"none", "none", "selective", "block"});
  o.recompute_blocks = dice.one_of<std::int64_t>({-1, -1, 1, 2});
  o.zero_stage = dice.below(4);
  o.persist = dice.one_of<std::int64_t>({0, 0, 12, 60, 100000});
  o.shard_ranks = random_group(dice, o.mesh);
  o.gather_ranks = random_group(dice, o.mesh);
  for (std::int64_t* bucket : {&o.gather_bucket, &o.reduce_bucket, &o.update_bucket})
    *bucket = dice.one_of<std::int64_t>({0, 100, 1000000});
  o.clip = dice.chance(70) ? 1.0 : 0.0;
  return step;
}

std::string RandomStep::print() const {
  return fmt::format("seed {}: {}{} rows of {} tokens, {} documents, {}\n{}", seed, sheaf::print(options), shape.rows, shape.seq_len,
                     shape.documents, name(compute), config.dump());
}

Graph RandomStep::on_one_rank() const {
  Options one = options;
  one.mesh.clear();
  return placed(*this, one);
}
Graph RandomStep::on_the_mesh() const { return placed(*this, options); }
Graph RandomStep::rewritten() const { return placed(*this, options, true); }

}    // namespace sheaf::testing
