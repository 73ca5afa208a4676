#include "engine/bench/bench_mesh.h"

#include <algorithm>
#include <map>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {

MeshWords parse_mesh_words(const std::string& text) {
  MeshWords words{.text = text};
  const std::map<std::string, std::pair<std::int64_t*, std::int64_t>> degrees = {
      {"ep", {&words.ep, 0}}, {"etp", {&words.etp, 2}}, {"tp", {&words.tp, 2}}, {"sp", {&words.sp, 2}}, {"zero", {&words.zero, -1}}};
  const auto bad = [&](const std::string& what) {
    user_error("mesh {}: {}; wanted words joined by +: dp, epN, etpN, tpN, spN, zero0 to zero3, as in ep4+tp2+zero3", quote(text), what);
  };
  for (const std::string& word : split(text, '+')) {
    if (word == "dp") continue;
    const std::size_t end = std::min(word.find_first_of("0123456789"), word.size());
    const auto found = degrees.find(word.substr(0, end));
    const std::string digits = word.substr(end);
    if (found == degrees.end() || digits.size() > 6 || digits.find_first_not_of("0123456789") != std::string::npos)
      bad(fmt::format("{} is no such word", quote(word)));
    auto& [degree, alone] = found->second;
    if (digits.empty() && alone < 0) bad("zero wants a stage");
    *degree = digits.empty() ? alone : std::stoll(digits);
    if (!digits.empty() && *degree < (found->first == "zero" ? 0 : 1)) bad(fmt::format("{} is a degree of 0", quote(word)));
    if (found->first == "zero" && *degree > 3) bad(fmt::format("{} is no stage of ZeRO", quote(word)));
    words.experts |= found->first == "ep" || found->first == "etp";
  }
  if (text.empty()) bad("it is empty");
  return words;
}

BenchMesh mesh_of(const MeshWords& words, std::int64_t ranks, std::int64_t num_experts) {
  BenchMesh mesh{
      .experts = words.experts, .ranks = ranks, .sp = words.sp, .tp = words.tp, .ep = words.ep, .etp = words.etp, .zero = words.zero};
  if (ranks % (mesh.tp * mesh.sp) != 0)
    user_error("{}: tp {} · sp {} does not divide {} rank{}", words.text, mesh.tp, mesh.sp, ranks, ranks == 1 ? "" : "s");
  mesh.dp = ranks / (mesh.tp * mesh.sp);
  if (mesh.ep == 0 && ranks % mesh.etp == 0)
    for (std::int64_t ep = 1; ep <= std::min(ranks / mesh.etp, num_experts); ++ep)
      if (ranks / mesh.etp % ep == 0) mesh.ep = ep;
  if (mesh.ep == 0 || ranks % (mesh.ep * mesh.etp) != 0)
    user_error("{}: ep {} · etp {} does not divide {} rank{}", words.text, std::max<std::int64_t>(mesh.ep, 1), mesh.etp, ranks,
               ranks == 1 ? "" : "s");
  if (mesh.ep > num_experts) user_error("{}: ep {} over {} experts", words.text, mesh.ep, num_experts);
  return mesh;
}

std::string degrees_text(const BenchMesh& mesh) {
  const auto group = [](std::initializer_list<std::pair<const char*, std::int64_t>> degrees) {
    std::vector<std::string> parts;
    for (const auto& [name, degree] : degrees)
      if (degree > 1) parts.push_back(fmt::format("{} {}", name, degree));
    return join(parts, " · ");
  };
  std::vector<std::string> parts = {group({{"dp", mesh.dp}, {"sp", mesh.sp}, {"tp", mesh.tp}})};
  if (mesh.experts) parts.push_back(group({{"edp", mesh.edp()}, {"ep", mesh.ep}, {"etp", mesh.etp}}));
  if (mesh.zero > 0) parts.push_back(fmt::format("ZeRO {}", mesh.zero));
  std::erase(parts, "");
  return parts.empty() ? "-" : join(parts, ", ");
}

Json degrees_json(const BenchMesh& mesh) {
  Json out = {{"dp", mesh.dp}, {"sp", mesh.sp}, {"tp", mesh.tp}};
  if (mesh.experts) out.update({{"edp", mesh.edp()}, {"ep", mesh.ep}, {"etp", mesh.etp}});
  out["zero_stage"] = mesh.zero;
  return out;
}

void set_mesh(Json& run, const BenchMesh& mesh) {
  run["run"]["nproc"] = mesh.ranks;
  run["tensor_parallel"] = {{"autotp_size", mesh.tp}};
  run["sequence_parallel_size"] = mesh.sp;
  run["zero_optimization"] = {{"stage", mesh.zero}, {"stage3_param_persistence_threshold", 0}};
  Json& experts = run["expert_parallel"];    // may have more keys
  experts["enabled"] = mesh.experts || !experts.empty();
  if (mesh.experts) experts["autoep_size"] = mesh.ep, experts["expert_tensor_parallel_size"] = mesh.etp;
}

}    // namespace sheaf
