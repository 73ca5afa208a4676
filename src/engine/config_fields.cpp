#include "engine/config_fields.h"

#include <algorithm>
#include <map>
#include <type_traits>

#include "base/error.h"
#include "base/text.h"
#include "engine/settings.h"

namespace sheaf {
namespace {

// Which key is which member: the one list for reading and writing.

template <class V>
void scheduler_fields(V&, ConstantRate&) {}
template <class V>
void scheduler_fields(V& v, LRRangeTest& s) {
  v("scheduler.params.lr_range_test_min_lr", s.min_lr);
  v("scheduler.params.lr_range_test_step_size", s.step_size);
  v("scheduler.params.lr_range_test_step_rate", s.step_rate);
  v("scheduler.params.lr_range_test_staircase", s.staircase);
}
template <class V>
void scheduler_fields(V& v, OneCycle& s) {
  v("scheduler.params.cycle_min_lr", s.min_lr);
  v("scheduler.params.cycle_max_lr", s.max_lr);
  v("scheduler.params.decay_lr_rate", s.decay_lr_rate);
  v("scheduler.params.cycle_first_step_size", s.first_step_size);
  v("scheduler.params.cycle_second_step_size", s.second_step_size);
  v("scheduler.params.cycle_first_stair_count", s.first_stair_count);
  v("scheduler.params.cycle_second_stair_count", s.second_stair_count);
  v("scheduler.params.decay_step_size", s.decay_step_size);
  v("scheduler.params.cycle_momentum", s.cycle_momentum);
  v("scheduler.params.cycle_min_mom", s.min_mom);
  v("scheduler.params.cycle_max_mom", s.max_mom);
  v("scheduler.params.decay_mom_rate", s.decay_mom_rate);
}
template <class V>
void scheduler_fields(V& v, WarmupLR& s) {
  v("scheduler.params.warmup_min_lr", s.min_lr);
  v("scheduler.params.warmup_max_lr", s.max_lr);
  v("scheduler.params.warmup_num_steps", s.num_steps);
  v("scheduler.params.warmup_type", s.type);
}
template <class V>
void scheduler_fields(V& v, WarmupDecayLR& s) {
  v("scheduler.params.total_num_steps", s.total_num_steps);
  scheduler_fields(v, s.warmup);
}
template <class V>
void scheduler_fields(V& v, WarmupCosineLR& s) {
  v("scheduler.params.total_num_steps", s.total_num_steps);
  v("scheduler.params.warmup_min_ratio", s.min_ratio);
  v("scheduler.params.warmup_num_steps", s.num_steps);
  v("scheduler.params.cos_min_ratio", s.cos_min_ratio);
  v("scheduler.params.warmup_type", s.type);
}

constexpr const char* kRouterKeys[] = {"route_norm",        "route_scale",        "score_apply",           "score_func",       "top_k",
                                       "num_expert_groups", "num_limited_groups", "routed_scaling_factor", "expert_activation"};

template <class V>
void fields(V& v, RunConfig& c) {
  v("model", c.model);
  v("data.train", c.data.train);
  v("data.eval", c.data.eval);
  v("data.eval_split", c.data.eval_split);
  v("data.seq_len", c.data.seq_len);
  v("data.tokenizer", c.data.tokenizer);
  v("data.field", c.data.field);
  v("data.cache", c.data.cache);
  v("data.packing", c.data.packing);
  v("data.shuffle", c.data.shuffle);
  v("run.steps", c.run.steps);
  v("run.output", c.run.output);
  v("run.save_every", c.run.save_every);
  v("run.write_model", c.run.write_model);
  v("run.keep", c.run.keep);
  v("run.stop_on_save_error", c.run.stop_on_save_error);
  v("run.eval_every", c.run.eval_every);
  v("run.seed", c.run.seed);
  v("run.log_every", c.run.log_every);
  v("run.timeout_s", c.run.timeout_s);
  v("run.deterministic", c.run.deterministic);
  v("run.cuda_graphs", c.run.cuda_graphs);
  v("run.device", c.run.device);
  v("run.nproc", c.run.nproc);
  v("train_batch_size", c.batch.global);
  v("train_micro_batch_size_per_gpu", c.batch.micro);
  v("gradient_accumulation_steps", c.batch.accumulation);
  v("gradient_clipping", c.gradient_clipping);
  v("bf16.enabled", c.bf16);
  v("bf16.bf16_optimizer_states", c.bf16_moments);
  v("data_types.grad_accum_dtype", c.grad_dtype);
  v("zero_optimization.stage", c.zero.stage);
  v("zero_optimization.stage3_param_persistence_threshold", c.zero.persist);
  v("zero_optimization.stage3_prefetch_bucket_size", c.zero.gather_bucket);
  v("zero_optimization.reduce_bucket_size", c.zero.reduce_bucket);
  v("zero_optimization.allgather_bucket_size", c.zero.update_bucket);
  v("zero_optimization.mics_shard_size", c.zero.shard_ranks);
  v("zero_optimization.zero_hpz_partition_size", c.zero.gather_ranks);
  v("tensor_parallel.autotp_size", c.parallel.tp);
  v("tensor_parallel.partition_config.layer_specs", c.parallel.layer_specs);
  v("tensor_parallel.partition_config.use_default_specs", c.parallel.use_default_specs);
  v("sequence_parallel_size", c.parallel.sp);
  v("expert_parallel", c.parallel, c.experts);
  v("run.expert_plan", c.experts.plan);
  v("run.expert_order", c.experts.order);
  v("run.freeze", c.run.freeze);
  v("run.tile_rows", c.run.tile_rows);
  v("run.recompute", c.run.recompute);
  v("activation_checkpointing.number_checkpoints", c.run.checkpoints);
  v("run.memory_limit", c.run.memory_limit);
  v("run.master_encoding", c.run.master_encoding);
  v("optimizer.type", c.optimizer.type);
  v("optimizer.params.lr", c.optimizer.lr);
  v("optimizer.params.betas", c.optimizer.beta1, c.optimizer.beta2);
  v("optimizer.params.eps", c.optimizer.eps);
  v("optimizer.params.weight_decay", c.optimizer.weight_decay);
  v("optimizer.params.bias_correction", c.optimizer.bias_correction);
  v("optimizer.params.adam_w_mode", c.optimizer.adam_w_mode);
  v("scheduler.type", c.scheduler);
  std::visit([&](auto& s) { scheduler_fields(v, s); }, c.scheduler);
}

std::size_t choice_index(const Key& key, const std::string& name) {
  return static_cast<std::size_t>(std::find(key.choices.begin(), key.choices.end(), name) - key.choices.begin());
}

template <std::size_t... I>
SchedulerConfig scheduler_of_index(std::size_t index, std::index_sequence<I...>) {
  SchedulerConfig out;
  ((index == I ? void(out.emplace<I>()) : void()), ...);
  return out;
}

struct Reader {
  const Settings& settings;

  void operator()(const char* path, double& x) { x = settings.get(path).get<double>(); }
  void operator()(const char* path, bool& x) { x = settings.get(path).get<bool>(); }
  // null, where it is allowed: 0, which means "derive it"
  void operator()(const char* path, std::int64_t& x) { read_or(path, x, std::int64_t{0}); }
  void operator()(const char* path, std::string& x) { read_or(path, x, std::string()); }
  void operator()(const char* path, double& a, double& b) {
    a = settings.get(path)[0].get<double>(), b = settings.get(path)[1].get<double>();
  }
  template <class T>
  void operator()(const char* path, std::optional<T>& x) {
    const Json& value = settings.get(path);
    x = value.is_null() ? std::nullopt : std::optional<T>(value.get<T>());
  }
  template <class E>
  requires std::is_enum_v<E>
  void operator()(const char* path, E& x) { x = static_cast<E>(choice_index(settings.key(path), settings.get(path).get<std::string>())); }
  void operator()(const char* path, Json& x) { x = settings.get(path); }
  void operator()(const char*, ModelSource& x) {
    if (settings.given("model.config"))
      x.config = settings.get("model.config");
    else
      x.folder = settings.get("model").get<std::string>();
  }
  void operator()(const char* path, std::vector<CorpusFile>& x) {
    const Json& value = settings.get(path);
    for (const Json& file : value.is_array() ? value : Json::array({value}))
      x.push_back(file.is_string() ? CorpusFile{file.get<std::string>()} : CorpusFile{file["path"], file.value("weight", 0.0)});
  }
  void operator()(const char* path, std::vector<std::string>& x) {
    for (const Json& text : settings.get(path)) {
      if (!text.is_string()) user_error("{}: found {}; wanted a list of texts", settings.at(path), text.dump());
      x.push_back(text.get<std::string>());
    }
  }
  void operator()(const char* section, ParallelConfig& x, ExpertConfig& experts) {
    const auto path = [&](std::string_view key) { return fmt::format("{}.{}", section, key); };
    experts.enabled = settings.get(path("enabled")).get<bool>();
    if (!experts.enabled) return;
    (*this)(path("autoep_size").c_str(), x.ep);
    (*this)(path("expert_tensor_parallel_size").c_str(), x.etp);
    (*this)(path("preset_model").c_str(), experts.preset);
    read_or(path("load_balance_coeff").c_str(), experts.balance_rate, 0.0);
    for (const char* key : kRouterKeys)
      if (settings.get(path(key)) != settings.key(path(key)).preset) experts.router[key] = settings.get(path(key));
  }
  void operator()(const char* path, SchedulerConfig& x) {
    const Json& type = settings.get(path);
    const std::size_t index = type.is_null() ? 0 : choice_index(settings.key(path), type.get<std::string>()) + 1;
    x = scheduler_of_index(index, std::make_index_sequence<std::variant_size_v<SchedulerConfig>>());
  }

 private:
  template <class T>
  void read_or(const char* path, T& x, T otherwise) {
    const Json& value = settings.get(path);
    x = value.is_null() ? otherwise : value.get<T>();
  }
};

struct Writer {
  Json& root;
  std::string scheduler;    // type

  template <class T>
  void operator()(const char* path, const T& x) {
    Json* node = &root;
    for (const std::string& name : split(path, '.')) node = &(*node)[name];
    if constexpr (std::is_enum_v<T>)
      *node = key(path).choices.at(static_cast<std::size_t>(x));
    else
      *node = x;
  }
  void operator()(const char* path, const std::string& x) { key(path).nullable&& x.empty() ? put(path, nullptr) : put(path, x); }
  template <class T>
  void operator()(const char* path, const std::optional<T>& x) {
    x ? put(path, *x) : put(path, nullptr);
  }
  void operator()(const char* path, double a, double b) { put(path, Json::array({a, b})); }
  void operator()(const char* path, const ModelSource& x) { put(path, x.from_scratch() ? Json{{"config", x.config}} : Json(x.folder)); }
  void operator()(const char* path, const std::vector<std::string>& x) { put(path, x); }
  void operator()(const char* path, const std::vector<CorpusFile>& x) {
    Json files = Json::array();
    for (const CorpusFile& file : x)
      files.push_back(file.weight > 0 ? Json{{"path", file.path}, {"weight", file.weight}} : Json(file.path));
    put(path, x.size() == 1 && x[0].weight == 0 ? files[0] : files);
  }
  void operator()(const char* section, const ParallelConfig& x, const ExpertConfig& experts) {
    const auto path = [&](std::string_view key) { return fmt::format("{}.{}", section, key); };
    put(path("enabled").c_str(), experts.enabled);
    put(path("autoep_size").c_str(), x.ep);
    put(path("expert_tensor_parallel_size").c_str(), x.etp);
    (*this)(path("preset_model").c_str(), experts.preset);
    put(path("load_balance_coeff").c_str(), experts.balance_rate > 0 ? Json(experts.balance_rate) : Json());
    for (const char* name : kRouterKeys) put(path(name).c_str(), experts.router.value(name, key(path(name).c_str()).preset));
  }
  void operator()(const char* path, const SchedulerConfig& x) {
    if (x.index() > 0) scheduler = key(path).choices.at(x.index() - 1);
    x.index() == 0 ? put(path, nullptr) : put(path, scheduler);
  }

 private:
  const Key& key(const char* path) const { return *find_key(table_path(path, scheduler)); }
  void put(const char* path, const Json& value) { this->operator()<Json>(path, value); }
};

}    // namespace

void read_fields(const Settings& settings, RunConfig& config) {
  Reader reader{settings};
  fields(reader, config);
}

Json resolved(const RunConfig& config) {
  Json out = Json::object();
  RunConfig copy = config;    // fields() takes what a reader can write to
  Writer writer{out, ""};
  fields(writer, copy);
  return out;
}

}    // namespace sheaf
