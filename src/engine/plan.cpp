#include "engine/plan.h"

#include <algorithm>

#include "base/text.h"
#include "engine/rank_memory.h"
#include "engine/run_inputs.h"
#include "engine/step_graph.h"
#include "passes/expert_rows.h"
#include "runtime/device_info.h"

namespace sheaf {
namespace {

// Where rows are packed by documents the corpus says how many a row has at most; without it, one in so many tokens.
constexpr std::int64_t kTokensOfDocument = 64;

DeviceKind planned_device(const RunConfig& config) {
  if (config.run.device.empty()) return cuda_build() ? DeviceKind::cuda : DeviceKind::cpu;
  return config.run.device == "cuda" ? DeviceKind::cuda : DeviceKind::cpu;
}

std::int64_t largest(const ScratchBytes& bytes) {
  std::int64_t most = 0;
  for (const auto& list : bytes)
    for (const std::int64_t n : list) most = std::max(most, n);
  return most;
}

std::string placement_text(const std::string& placement) { return placement.empty() ? "whole" : placement; }

}    // namespace

RunPlan plan_run(const RunConfig& config, double load) {
  RunPlan plan{.config = config, .device = planned_device(config)};
  const std::string where = origin_of(config.model);
  const Json model = read_model_config(config.model);
  const ModelConfig parsed = parse_model_config(model, where);
  StepOptions options{.where = where, .device = plan.device};
  if (config.data.packing == Packing::documents) {
    options.documents = std::max<std::int64_t>(1, config.data.seq_len / kTokensOfDocument);
    plan.assumptions.push_back(fmt::format("packed rows have up to {} documents (the data was not read)", options.documents));
  }
  const TrainingStep step = training_step(config, model, parsed, options);
  const Graph& graph = step.graph;
  plan.chosen = step.chosen;
  plan.model_type = parsed.model_type;
  plan.mesh = graph.mesh;
  plan.parameters = parameter_rows(graph);
  for (const ParameterRow& row : plan.parameters) plan.num_parameters += num_elements(row.shape);
  plan.communication = communication(graph);

  plan.load = load;
  plan.expert_rows = expert_row_bytes(graph, 1.0), plan.expert_rows_loaded = expert_row_bytes(graph, load);
  KnownScratch known;
  const RankMemory rank = heaviest_rank(graph, config, plan.device, -1, known);
  plan.memory = rank.use;
  plan.arena_bytes = rank.plan.arena_bytes;
  plan.scratch_bytes = largest(rank.scratch.bytes);
  plan.scratch_measured = rank.scratch.measured;
  plan.peak = arena_peak(graph, rank.plan);
  if (!config.data.eval.empty() || config.data.eval_split > 0)
    plan.assumptions.emplace_back("evaluation is not counted: it reads the step's parameters and uses its arena while the step rests");
  return plan;
}

std::string print(const RunPlan& plan, bool all) {
  const RunConfig& c = plan.config;
  const auto n = [](std::int64_t count, const char* one) { return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s"); };
  std::string text = fmt::format(
      "{} with {} parameters on {}, {} in {}, ZeRO stage {}\n"
      "{} of {} tokens a step: micro-batch {} × accumulation {} × dp {}\n",
      plan.model_type, human_count(static_cast<double>(plan.num_parameters)), n(c.parallel.ranks, "rank"), name(plan.device),
      c.bf16 ? "bf16" : "fp32", c.zero.stage, n(c.batch.global, "row"), c.data.seq_len, c.batch.micro, c.batch.accumulation, c.parallel.dp);
  text += plan.mesh.atoms.empty() ? "no mesh: one rank\n" : print(plan.mesh) + "\n";
  std::vector<std::vector<std::string>> rows = {{"parameter", "count", "shape", "use", "stored for use", "master, moments", "bytes"}};
  for (const ParameterRow& row : all ? plan.parameters : by_pattern(plan.parameters)) {
    std::vector<std::string> extents;
    for (const std::int64_t extent : row.shape) extents.push_back(std::to_string(extent));
    rows.push_back({row.name, std::to_string(row.count), "[" + join(extents, ", ") + "]", placement_text(row.use),
                    row.parameter == row.use ? "=" : placement_text(row.parameter),
                    row.master == row.use ? "=" : placement_text(row.master), human_bytes(static_cast<double>(row.bytes))});
  }
  text += "\n" + table(rows);
  if (!plan.communication.empty()) text += "\n" + communication_text(plan.communication);
  text += "\n" + memory_text(plan.memory);
  if (plan.expert_rows > 0)
    text += fmt::format("\nrows of experts: {} of the activations if all ranks have equally many, {} on one with {} times its share\n",
                        human_bytes(static_cast<double>(plan.expert_rows)), human_bytes(static_cast<double>(plan.expert_rows_loaded)),
                        plan.load);
  text += fmt::format("\npeak of the arena: {} in use of {}, in {}\n", human_bytes(static_cast<double>(plan.peak.bytes)),
                      human_bytes(static_cast<double>(plan.arena_bytes)), plan.peak.node);
  constexpr std::size_t kShown = 8;
  std::vector<std::vector<std::string>> values = {{"  live then", "count", "each", "bytes"}};
  for (std::size_t i = 0; i < std::min(kShown, plan.peak.values.size()); ++i) {
    const PeakValue& v = plan.peak.values[i];
    values.push_back({"  " + v.what, std::to_string(v.count), v.type, human_bytes(static_cast<double>(v.bytes))});
  }
  text += table(values);
  text += fmt::format("\nscratch of kernels: {}, at most {}\n",
                      plan.scratch_measured             ? "measured"
                      : plan.device == DeviceKind::cuda ? "as known of GPUs' kernels"
                                                        : "estimated from smaller calls",
                      human_bytes(static_cast<double>(plan.scratch_bytes)));
  if (!plan.chosen.empty()) text += plan.chosen + "\n";
  for (const std::string& line : plan.assumptions) text += "assumed: " + line + "\n";
  return text;
}

Json to_json(const RunPlan& plan) {
  const RunConfig& c = plan.config;
  Json out;
  out["memory"] = {{"parameters", plan.memory.parameters},
                   {"gradients", plan.memory.gradients},
                   {"optimizer", plan.memory.optimizer},
                   {"activations", plan.memory.activations}};
  out["communication"] = Json::array();
  for (const TrafficRow& row : plan.communication)
    out["communication"].push_back({{"kind", row.kind}, {"axis", row.axis}, {"count", row.count}, {"bytes", row.bytes}});
  if (plan.expert_rows > 0)
    out["expert_rows"] = {{"balanced_bytes", plan.expert_rows}, {"load", plan.load}, {"loaded_bytes", plan.expert_rows_loaded}};
  out["ranks"] = c.parallel.ranks;
  out["device"] = name(plan.device);
  out["total_bytes"] = plan.memory.total();
  Json atoms = Json::object(), axes = Json::object();
  for (const auto& atom : plan.mesh.atoms) atoms[atom.name] = atom.size;
  for (const auto& axis : plan.mesh.axes) {
    axes[axis.name] = Json::array();
    for (const Atom atom : axis.atoms) axes[axis.name].push_back(plan.mesh.atoms[atom].name);
  }
  out["mesh"] = {{"text", print(plan.mesh)}, {"atoms", atoms}, {"axes", axes}};
  if (!plan.chosen.empty()) out["chosen"] = plan.chosen;
  out["num_parameters"] = plan.num_parameters;
  out["parameters"] = Json::array();
  for (const ParameterRow& row : plan.parameters)
    out["parameters"].push_back({{"name", row.name},
                                 {"shape", row.shape},
                                 {"dtype", name(row.dtype)},
                                 {"use", row.use},
                                 {"stored", {{"parameter", row.parameter}, {"master", row.master}, {"moments", row.moments}}},
                                 {"bytes", row.bytes}});
  out["peak"] = {{"node", plan.peak.node}, {"bytes", plan.peak.bytes}, {"arena_bytes", plan.arena_bytes}, {"values", Json::array()}};
  for (const PeakValue& v : plan.peak.values)
    out["peak"]["values"].push_back({{"what", v.what}, {"type", v.type}, {"count", v.count}, {"bytes", v.bytes}});
  out["scratch"] = {{"how", plan.scratch_measured ? "measured" : "estimated"}, {"largest_bytes", plan.scratch_bytes}};
  out["assumed"] = plan.assumptions;
  return out;
}

}    // namespace sheaf
