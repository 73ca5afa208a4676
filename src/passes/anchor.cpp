// anchor: gives states, inputs and accumulators their placements on a mesh; what follows from them is propagate's.
//
// On entry: no placements. options.mesh: atoms and axes dp, sp, tp (absent ones have one rank); empty: nothing is done.
//           options.tp_plan: "PATTERN STYLE; ..." in the words of HuggingFace's base_model_tp_plan; * stands for a layer's number; a
//           pattern that begins with re: is a regular expression for the whole name of a parameter; one that begins with ? need not match.
//           The first that matches holds.
// On exit:  graph.mesh. Inputs are cut by rows over dp and by tokens over sp. Every state has its storage placement: what its use needs
//           (`use`), and a flat suffix by the ZeRO stage:
//
//             stage   @w.c (what ops read)   @w.grad          @w, @w.m, @w.v
//             0       use                    use, partial     use
//             1       use                    use, partial     use + suffix
//             2       use                    use + suffix     use + suffix
//             3       use + suffix           use + suffix     use + suffix        small parameters: @w.c stays at use
//
//           States of experts (attribute dims, with letters e and m) lie by e over ep and by m over etp; their suffix is the atoms of edp.
//           The suffix of others is every dp and sp atom, the fastest link major, so that shorter ones (options.shard_ranks, gather_ranks)
//           nest in it by prefix. A master @w that lies elsewhere than what ops read has a copy @w.c, in fp32 too; the epilogue rewrites
//           it.
//
// A weight of a HuggingFace file is [out, in]; our states split either into dims (q: [hk, r, d, H]). colwise cuts the dims of `out`,
// rowwise those of `in`. Heads are cut whole: atoms go to hk while their product divides it, then to r, never to d. What divides neither is
// cut unevenly where there are enough heads; keys and values with fewer heads than ranks are replicated.
#include <algorithm>
#include <map>
#include <regex>

#include "base/error.h"
#include "base/text.h"
#include "ops/op_table.h"
#include "passes/pass.h"

namespace sheaf {
namespace {

enum class Cut { out, in, none };

// Collective-only styles anchor nothing: propagation finds the collectives. reference: transformers' tensor-parallel styles, old and new
// spellings.
const std::map<std::string_view, Cut> kStyles = {
    {"colwise", Cut::out},
    {"colwise_gather_output", Cut::out},
    {"colwise_rep", Cut::out},
    {"packed_colwise", Cut::out},    // the loader takes packed tensors apart
    {"local_colwise", Cut::out},
    {"rowwise", Cut::in},
    {"rowwise_split_input", Cut::in},
    {"rowwise_rep", Cut::in},
    {"packed_rowwise", Cut::in},
    {"local_rowwise", Cut::in},
    {"local_packed_rowwise", Cut::in},
    {"embedding_rowwise", Cut::out},    // of the table: the vocabulary
    {"embedding_colwise", Cut::in},
    {"replicated", Cut::none},
    {"replicate", Cut::none},
    {"replicated_with_grad_allreduce", Cut::none},
    {"sequence_parallel", Cut::none},
    {"gather", Cut::none},
    {"local", Cut::none},
    {"mla_kv_a_proj", Cut::none},
    {"ep_router", Cut::none},
    {"moe_tp_experts", Cut::none},
    {"moe_identity_expert", Cut::none},
    {"grouped_gemm", Cut::none},    // experts are cut over their own axes
    {"megamoe_router", Cut::none},
    {"megamoe_experts", Cut::none},
    {"moe_experts_packed_colwise", Cut::none},
    {"moe_experts_colwise", Cut::none},
    {"moe_experts_rowwise", Cut::none},
    {"all_reduce", Cut::none},
};

struct PlanEntry {
  std::string pattern;
  Cut cut;
  bool must_match = true;
};

std::vector<PlanEntry> parse_plan(const std::string& text) {
  std::vector<PlanEntry> plan;
  std::vector<std::string> styles;
  for (const auto& [name, cut] : kStyles) styles.emplace_back(name);
  for (const std::string& entry : split(text, ';')) {
    const std::string line(trimmed(entry));
    if (line.empty()) continue;
    const std::size_t blank = line.rfind(' ');
    if (blank == std::string::npos) user_error("tp_plan: {} is no \"PATTERN STYLE\"", quote(line));
    const std::string style = line.substr(blank + 1);
    const auto found = kStyles.find(style);
    if (found == kStyles.end())
      user_error("tp_plan: {}: unknown style {}{}", line.substr(0, blank), quote(style), did_you_mean(style, styles));
    std::string pattern(trimmed(std::string_view(line).substr(0, blank)));
    try {
      if (pattern.starts_with("re:")) std::regex(pattern.substr(3));
    } catch (const std::regex_error& error) {
      user_error("tp_plan: {} is no regular expression: {}", quote(pattern.substr(3)), error.what());
    }
    const bool optional = pattern.starts_with('?');
    plan.push_back({optional ? pattern.substr(1) : std::move(pattern), found->second, !optional});
  }
  return plan;
}

// "layers.*.mlp.up_proj" matches the parameters of model.layers.3.mlp.up_proj, with or without the prefix of the base model.
bool matches(std::string_view pattern, std::string_view name) {
  if (pattern.starts_with("re:")) return std::regex_match(name.begin(), name.end(), std::regex(std::string(pattern.substr(3))));
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return false;
  const auto pattern_parts = split(pattern, '.'), parts = split(name.substr(0, dot), '.');
  const std::size_t skipped = parts.size() == pattern_parts.size() + 1 && parts[0] == "model" ? 1 : 0;
  if (parts.size() != pattern_parts.size() + skipped) return false;
  for (std::size_t i = 0; i < pattern_parts.size(); ++i)
    if (pattern_parts[i] != "*" && pattern_parts[i] != parts[i + skipped]) return false;
  return true;
}

class Anchors {
 public:
  Anchors(Graph& graph, const Options& options)
      : graph_(graph), options_(options), plan_(parse_plan(options.tp_plan)), matched_(plan_.size()) {
    graph.mesh = parse_mesh(options.mesh);
    for (const char* axis : {"sp", "dp"}) {    // minor axes first
      const std::vector<Atom>& atoms = graph.mesh.axis(axis);
      suffix_.insert(suffix_.end(), atoms.rbegin(), atoms.rend());
    }
  }

  void run() {
    for (const Value v : graph_.all(ValueKind::state))
      if (!graph_[v].attrs.has("of")) place_state(v);
    for (const Value v : graph_.all(ValueKind::input)) {
      Placement& p = graph_[v].type.placement;
      p = by_letters(graph_[v].attrs.text("dims"));
      p.dims.insert(p.dims.begin(), std::vector<Atom>{});    // micro-batches follow one another in time
    }
    for (std::size_t i = 0; i < plan_.size(); ++i)
      if (!matched_[i] && plan_[i].must_match) no_match(plan_[i].pattern);
    if (!options_.expert_order.empty()) order_experts();
  }

 private:
  // b: rows, s: tokens of a row, e: experts, m: the inner dim of an expert.
  Placement by_letters(const std::string& letters) const {
    static const std::map<std::string, std::string> kAxes = {{"b", "dp"}, {"s", "sp"}, {"e", "ep"}, {"m", "etp"}};
    Placement p;
    for (const std::string& dim : split(letters, ' ')) {
      const auto axis = kAxes.find(dim);
      p.dims.push_back(graph_.mesh.axis(axis == kAxes.end() ? "" : axis->second));
    }
    return p;
  }

  void place_state(Value w) {
    const ValueInfo& info = graph_[w];
    const Placement of_plan = state_placement(info);    // which notes what the plan matches
    const bool experts =
        info.attrs.has("dims") &&
        graph_.mesh.size(graph_.mesh.axis("edp")) * graph_.mesh.size(graph_.mesh.axis("ep")) * graph_.mesh.size(graph_.mesh.axis("etp")) >
            1 &&
        info.attrs.has("trainable");
    const Placement use = info.attrs.has("dims") ? by_letters(info.attrs.text("dims")) : of_plan;
    const auto suffix = [&](std::int64_t ranks) { return experts ? expert_suffix(ranks) : this->suffix(ranks); };
    graph_[w].type.placement = use;
    if (!info.attrs.has("trainable")) return;
    const bool trained = info.attrs.flag("trainable");
    Placement master = use, parameter = use;
    if (options_.zero_stage >= (trained ? 1 : 3)) master.flat = suffix(options_.shard_ranks);
    if (options_.zero_stage == 3 && num_elements(info.type.shape) > options_.persist)
      parameter.flat = suffix(options_.gather_ranks ? options_.gather_ranks : options_.shard_ranks);
    const std::string name = info.name;
    if (!trained) {    // one state that ops read
      graph_[w].type.placement = parameter;
      return;
    }
    graph_[w].type.placement = master;
    for (const char* suffix : {".m", ".v"})
      if (const Value moment = graph_.find(name + suffix)) graph_[moment].type.placement = master;
    if (const Value gradient = graph_.find(name + ".grad")) graph_[gradient].type.placement = options_.zero_stage >= 2 ? master : use;
    Value copy = graph_.find(name + ".c");
    if (!copy && !same(master, parameter)) copy = make_copy(w);
    if (copy) graph_[copy].type.placement = parameter;
  }
  // Of experts: the ranks that hold the same ones. Those of tp are the fastest.
  std::vector<Atom> expert_suffix(std::int64_t ranks) const {
    std::vector<Atom> atoms = graph_.mesh.axis("tp");
    std::reverse(atoms.begin(), atoms.end());
    for (const Atom atom : suffix(ranks)) atoms.push_back(atom);
    const std::uint32_t edp = mask(graph_.mesh.axis("edp"));
    std::erase_if(atoms, [&](Atom atom) { return (edp >> atom & 1) == 0; });
    return atoms;
  }
  // States of experts hold them in another order, which is their attribute `order`; routers look up where each one lies. Nothing else
  // knows.
  void order_experts() {
    const std::vector<std::string> orders = split(options_.expert_order, ';');
    std::size_t layer = 0;
    const auto order_of = [&](std::size_t i) { return std::string(trimmed(orders.size() == 1 ? orders[0] : orders.at(i))); };
    std::map<std::string, std::string> of_layer;    // prefix of its states
    for (Node& node : graph_.nodes(Segment::first)) {
      if (has_operand(*node.op, "expert") && layer > 0)
        for (const Value v : node.in)
          if (v && graph_[v].kind == ValueKind::state) {
            const std::string master = graph_[v].attrs.has("of") ? graph_[v].attrs.text("of") : graph_[v].name;
            if (!graph_[graph_.find(master)].attrs.has("order")) graph_[graph_.find(master)].attrs.set("order", order_of(layer - 1));
          }
      if (node.op != &op(OpId::route)) continue;
      const std::vector<std::string> order = split(order_of(layer), ' ');
      std::vector<double> place(order.size());
      for (std::size_t p = 0; p < order.size(); ++p) place.at(std::stoul(order[p])) = static_cast<double>(p);
      const Value table = graph_.declare(ValueKind::constant, fmt::format("expert_places.{}", layer++),
                                         {DType::i32, {static_cast<std::int64_t>(place.size())}, {}});
      graph_[table].data = std::move(place);
      node.in = {node.in[0], table};
    }
  }
  // The atoms of a suffix over `ranks` ranks; 0: all.
  std::vector<Atom> suffix(std::int64_t ranks) const {
    if (ranks == 0) return suffix_;
    std::vector<Atom> atoms;
    std::int64_t size = 1;
    for (const Atom atom : suffix_) {
      if (size == ranks) break;
      atoms.push_back(atom), size *= graph_.mesh.atoms[atom].size;
    }
    if (size != ranks) user_error("anchor: no atoms of dp and sp make groups of {} ranks", ranks);
    return atoms;
  }

  // Ops of the body read @w.c from now on; the epilogue sets it from the new @w.
  Value make_copy(Value w) {
    const Value copy = graph_.declare(ValueKind::state, graph_[w].name + ".c", graph_.type(w), {{"of", graph_[w].name}});
    for (const Segment segment : {Segment::first, Segment::rest})
      for (Node& node : graph_.nodes(segment)) std::replace(node.in.begin(), node.in.end(), w, copy);
    auto& epilogue = graph_.nodes(Segment::epilogue);
    auto at = epilogue.end();    // before the metrics: behind the last `set` of a weight's state
    while (at != epilogue.begin()) {
      const Node& before = *std::prev(at);
      if (before.op->name == "set" && (graph_[before.in[0]].attrs.has("of") || graph_[before.in[0]].attrs.has("trainable"))) break;
      --at;
    }
    epilogue.insert(at, {&op(OpId::set), {copy, w}, {}, {}, {}});
    return copy;
  }
  Placement state_placement(const ValueInfo& info) {
    Placement p;
    p.dims.resize(info.type.shape.size());
    bool placed = false;
    for (std::size_t i = 0; i < plan_.size(); ++i) {
      if (!matches(plan_[i].pattern, info.name)) continue;
      matched_[i] = true;
      if (std::exchange(placed, true)) continue;
      // [out] or [out, in] of the file, as runs of our dims.
      const std::vector<std::size_t> ends = group_ends(info);
      if (plan_[i].cut == Cut::out) cut(info.type.shape, 0, ends[0], p);
      if (plan_[i].cut == Cut::in && ends.size() == 2) cut(info.type.shape, ends[0], ends[1], p);    // a bias has no `in`
    }
    return p;
  }
  std::vector<std::size_t> group_ends(const ValueInfo& info) const {
    const Shape& shape = info.type.shape;
    std::vector<std::size_t> ends;
    std::size_t d = 0;
    for (const std::int64_t extent : file_shape(info)) {
      std::int64_t product = 1;
      if (extent > 1 || (d < shape.size() && shape[d] == 1)) {    // else: a dim of 1 that only the file has
        do product *= shape[d++];
        while (product < extent && d < shape.size());
      }
      ends.push_back(d);
    }
    return ends;
  }
  // The dims [begin, end) of a state over tp.
  void cut(const Shape& shape, std::size_t begin, std::size_t end, Placement& p) {
    const std::vector<Atom>& atoms = graph_.mesh.axis("tp");
    if (end - begin == 1) {
      p.dims[begin] = atoms;
      return;
    }
    std::vector<std::int64_t> pieces(shape.size(), 1);
    for (const Atom atom : atoms) {
      const std::int64_t size = graph_.mesh.atoms[atom].size;
      const auto take = [&](auto&& fits) {    // of the dims of heads: all of the group but the last
        for (std::size_t d = begin; d + 1 < end; ++d)
          if (fits(d)) {
            p.dims[d].push_back(atom), pieces[d] *= size;
            return true;
          }
        return false;
      };
      take([&](std::size_t d) { return shape[d] % (pieces[d] * size) == 0; }) ||
          take([&](std::size_t d) { return shape[d] >= pieces[d] * size; });
    }
  }
  [[noreturn]] void no_match(const std::string& pattern) const {
    std::vector<std::string> patterns;    // that would match
    for (const Value v : graph_.all(ValueKind::state)) {
      std::vector<std::string> parts = split(graph_[v].name, '.');
      if (!graph_[v].attrs.has("trainable") || parts.size() < 2) continue;
      parts.pop_back();
      if (parts[0] == "model") parts.erase(parts.begin());
      for (std::string& part : parts)
        if (part.find_first_not_of("0123456789") == std::string::npos) part = "*";
      if (std::find(patterns.begin(), patterns.end(), join(parts, ".")) == patterns.end()) patterns.push_back(join(parts, "."));
    }
    const std::string hint = did_you_mean(pattern, patterns);
    user_error("tp_plan: {} matches no parameter{}", quote(pattern), hint.empty() ? "; the model has " + join(patterns, ", ") : hint);
  }

  Graph& graph_;
  const Options& options_;
  std::vector<PlanEntry> plan_;
  std::vector<bool> matched_;
  std::vector<Atom> suffix_;
};

}    // namespace

Graph anchor(Graph graph, const Options& options) {
  if (!options.mesh.empty()) Anchors(graph, options).run();
  return graph;
}

}    // namespace sheaf
