#include "engine/config.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/text.h"
#include "engine/config_fields.h"

namespace sheaf {
namespace {

// What follows from several keys together.

std::string ranks_text(const ParallelConfig& p) {
  const std::string ranks = p.ranks == 1 ? "1 rank" : fmt::format("{} ranks", p.ranks);
  return p.tp * p.sp == 1 ? ranks : fmt::format("{} / (tp {} · sp {})", ranks, p.tp, p.sp);
}

// 6 -> "1, 2, 3 or 6"
std::string divisors_text(std::int64_t n) {
  std::vector<std::string> divisors;
  for (std::int64_t d = 1; d < n; ++d)
    if (n % d == 0) divisors.push_back(std::to_string(d));
  return divisors.empty() ? std::to_string(n) : fmt::format("{} or {}", join(divisors, ", "), n);
}

void resolve_parallel(const Settings& settings, ParallelConfig& p, std::int64_t ranks) {
  p.ranks = ranks;
  p.tp = std::max<std::int64_t>(p.tp, 1);
  for (const char* path : {"tensor_parallel.tp.tp_size", "tensor_parallel.partition_config.tp_size"}) {
    const auto size = settings.get(path).get<std::int64_t>();
    if (size != 1 && size != p.tp) user_error("{}: found {}, but tensor_parallel.autotp_size is {}", settings.at(path), size, p.tp);
  }
  std::int64_t product = 0;
  if (__builtin_mul_overflow(p.tp, p.sp, &product) || p.ranks % product != 0)
    user_error("{}: tp {} · sp {} does not divide the {} rank{}; their product may be {}, or start more ranks", settings.file(), p.tp, p.sp,
               p.ranks, p.ranks == 1 ? "" : "s", divisors_text(p.ranks));
  p.dp = p.ranks / (p.tp * p.sp);
  if (__builtin_mul_overflow(p.ep, p.etp, &product) || p.ranks % product != 0)
    user_error("{}: ep {} · etp {} does not divide the {} rank{}; their product may be {}, or start more ranks",
               settings.at("expert_parallel.autoep_size"), p.ep, p.etp, p.ranks, p.ranks == 1 ? "" : "s", divisors_text(p.ranks));
  constexpr const char* kDp = "data_parallel_size";
  if (const Json& dp = settings.get(kDp); !dp.is_null() && dp.get<std::int64_t>() != p.dp)
    user_error("{}: found {}, but {} = {}; leave it out", settings.at(kDp), dp.get<std::int64_t>(), ranks_text(p), p.dp);
}

// DeepSpeed's spellings of "off" become 0.
void resolve_zero(const Settings& settings, ZeroConfig& zero) {
  zero.shard_ranks = std::max<std::int64_t>(zero.shard_ranks, 0);
  if (zero.gather_ranks <= 1) zero.gather_ranks = 0;
  const auto needs = [&](const char* path, std::int64_t size, std::int64_t stage) {
    if (size > 0 && zero.stage < stage)
      user_error("{}: found {}, which needs zero_optimization.stage {}; it is {}", settings.at(path), size, stage == 3 ? "3" : "1, 2 or 3",
                 zero.stage);
  };
  needs("zero_optimization.mics_shard_size", zero.shard_ranks, 1);
  needs("zero_optimization.zero_hpz_partition_size", zero.gather_ranks, 3);
  if (zero.shard_ranks > 0 && zero.gather_ranks > zero.shard_ranks)
    user_error("{}: found {}, more than the {} ranks of zero_optimization.mics_shard_size, over which parameters are cut already",
               settings.at("zero_optimization.zero_hpz_partition_size"), zero.gather_ranks, zero.shard_ranks);
}

// DeepSpeed's rule: divide down, then insist on equality. 0 = not given.
void resolve_batch(const Settings& settings, BatchConfig& b, const ParallelConfig& p) {
  const BatchConfig given = b;
  if (b.global == 0 && b.micro == 0)
    user_error(
        "{}: no batch size; give train_micro_batch_size_per_gpu (rows that a rank computes at once), or train_batch_size (rows of an "
        "update), "
        "and if you like gradient_accumulation_steps",
        settings.file());
  if (b.accumulation == 0) b.accumulation = b.global != 0 && b.micro != 0 ? b.global / b.micro / p.dp : 1;
  if (b.micro == 0) b.micro = b.global / p.dp / b.accumulation;
  std::int64_t product = 0;
  const bool overflow = __builtin_mul_overflow(b.micro, b.accumulation, &product) || __builtin_mul_overflow(product, p.dp, &product);
  if (overflow) user_error("{}: the rows of an update, {} × {} × {}, are too many", settings.file(), b.micro, b.accumulation, p.dp);
  if (b.global == 0) b.global = product;
  if (b.global == product && product > 0) return;
  const auto part = [](const char* name, std::int64_t value, std::int64_t was) {
    return fmt::format("{} {}{}", name, value, was ? "" : " (derived)");
  };
  // What was given stays, and the batch grows to the next that it divides.
  std::int64_t unit = 0, fits = 0;
  const bool large = __builtin_mul_overflow(std::max<std::int64_t>(given.micro, 1), std::max<std::int64_t>(given.accumulation, 1), &unit) ||
                     __builtin_mul_overflow(unit, p.dp, &unit) || __builtin_mul_overflow((b.global - 1) / unit + 1, unit, &fits);
  if (given.micro && given.accumulation) fits = unit;
  user_error("{}: found {}, but\n  {} × {} × {} = {}{}", settings.at("train_batch_size"), b.global,
             part("train_micro_batch_size_per_gpu", b.micro, given.micro),
             part("gradient_accumulation_steps", b.accumulation, given.accumulation), ranks_text(p), product,
             large ? "" : fmt::format("\n  train_batch_size {} fits", fits));
}

void check_evaluation(const Settings& settings, const RunConfig& c) {
  if (!c.data.eval.empty() && c.data.eval_split > 0)
    user_error("{}: found {}, and data.eval is given too; take one", settings.at("data.eval_split"), shortest(c.data.eval_split));
  if (c.run.eval_every > 0 && c.data.eval.empty() && c.data.eval_split == 0)
    user_error("{}: found {}, but there is nothing to evaluate on; give data.eval (a file) or data.eval_split (a share of data.train)",
               settings.at("run.eval_every"), c.run.eval_every);
}

void check_gradients(const Settings& settings, const RunConfig& c) {
  if (c.grad_dtype == "bf16" && !c.bf16)
    user_error("{}: found 'bf16', which needs bf16.enabled true; leave it out, or compute in bf16",
               settings.at("data_types.grad_accum_dtype"));
}

void resolve_schedule(const Settings& settings, RunConfig& c, std::vector<std::string>& chosen) {
  std::int64_t* total = nullptr;
  if (auto* decay = std::get_if<WarmupDecayLR>(&c.scheduler)) total = &decay->total_num_steps;
  if (auto* cosine = std::get_if<WarmupCosineLR>(&c.scheduler)) total = &cosine->total_num_steps;
  if (!total || *total != 0) return;
  *total = c.run.steps;
  chosen.push_back(fmt::format("{}.total_num_steps {} (run.steps)", settings.get("scheduler.type").get<std::string>(), *total));
}

// ---- the banner

// a.b, a.c, d -> "a.{b, c}, d"
std::string grouped(std::vector<std::string> paths) {
  std::sort(paths.begin(), paths.end());
  std::map<std::string, std::vector<std::string>> sections;
  std::vector<std::string> out;
  for (const std::string& path : paths) {
    const std::size_t dot = path.find('.');
    if (dot == std::string::npos)
      out.push_back(path);
    else
      sections[path.substr(0, dot)].push_back(path.substr(dot + 1));
  }
  for (const auto& [section, names] : sections)
    out.push_back(names.size() == 1 ? section + "." + names[0] : fmt::format("{}.{{{}}}", section, join(names, ", ")));
  return join(out, ", ");
}

std::vector<std::string> banner_lines(const Settings& settings, const RunConfig& c, std::vector<std::string> chosen) {
  const BatchConfig& b = c.batch;
  if (!settings.given("train_batch_size") || !settings.given("train_micro_batch_size_per_gpu") ||
      !settings.given("gradient_accumulation_steps"))
    chosen.push_back(fmt::format("train_batch_size {} = micro-batch {} × accumulation {} × {}", b.global, b.micro, b.accumulation,
                                 ranks_text(c.parallel)));
  if (!settings.given("optimizer.type")) chosen.emplace_back("optimizer AdamW");
  if (!settings.given("optimizer.params.lr")) chosen.push_back(fmt::format("lr {}", shortest(c.optimizer.lr)));
  if (c.scheduler.index() == 0) chosen.emplace_back("constant learning rate");
  if (!settings.given("gradient_clipping")) chosen.push_back(fmt::format("gradient_clipping {}", shortest(c.gradient_clipping)));
  if (!c.bf16 && !settings.given("bf16.enabled")) chosen.emplace_back("fp32");
  for (const char* path : {"run.output", "run.seed"})
    if (!settings.given(path)) chosen.push_back(fmt::format("{} {}", path, shown(settings.get(path))));
  std::vector<std::string> lines;
  if (!chosen.empty()) lines.push_back("chosen: " + join(chosen, ", "));
  if (!settings.idle().empty()) lines.push_back("no meaning here: " + grouped(settings.idle()));
  return lines;
}

LoadedConfig load(Settings settings, const std::vector<std::string>& overrides, std::int64_t ranks) {
  for (const std::string& assignment : overrides) settings.override_with(assignment);
  settings.check();
  LoadedConfig out;
  RunConfig& c = out.config;
  read_fields(settings, c);
  std::vector<std::string> chosen;
  resolve_parallel(settings, c.parallel, ranks > 0 ? ranks : c.run.nproc);
  resolve_zero(settings, c.zero);
  resolve_batch(settings, c.batch, c.parallel);
  resolve_schedule(settings, c, chosen);
  check_evaluation(settings, c);
  check_gradients(settings, c);
  out.banner = banner_lines(settings, c, std::move(chosen));
  return out;
}

}    // namespace

LoadedConfig parse_config(const std::string& text, const std::string& where, const std::vector<std::string>& overrides,
                          std::int64_t ranks) {
  return load(Settings(text, where), overrides, ranks);
}

LoadedConfig load_config(const std::string& path, const std::vector<std::string>& overrides, std::int64_t ranks) {
  return parse_config(read_file(path), path, overrides, ranks);
}

LoadedConfig load_deepspeed_config(const std::string& path, const std::string& model, const std::string& data,
                                   const std::vector<std::string>& overrides, std::int64_t ranks) {
  Settings settings(read_file(path), path);
  settings.put("model", model, "--model");
  settings.put("data.train", data, "--data");
  return load(std::move(settings), overrides, ranks);
}

}    // namespace sheaf
