#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <type_traits>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "passes/pass.h"

namespace sheaf {

const std::vector<Pass>& training_passes() {
  static const std::vector<Pass> passes = {
      {"differentiate", differentiate, "adds the backward: one gradient accumulator per trainable state"},
      // Before dead code goes: the pattern needs both gradients of the logits, and its fusion is what makes one of them dead.
      {"fuse_softmax_grad", fuse_softmax_grad, "cross-entropy's two gradients of the logits become one op"},
      {"optimize", optimize, "adds the end of the step: norm, clipping, commit flag, AdamW, metrics"},
      {"anchor", anchor, "on a mesh: placements of states by the tensor-parallel plan, of inputs by rows and tokens"},
      // Before micro_batches: each node is placed once, not once in `first` and once in `rest`. Before dead code goes: what nothing reads
      // returns home in vain.
      {"propagate", propagate, "every value gets its placement, from those of states and inputs; reshards where placements disagree",
       Level::l2},
      {"remove_dead", remove_dead, "removes nodes that nothing needs"},
      // Before residency: what is computed again reads gathers of the backward. After propagate: a clone lies where its original does.
      {"recompute", recompute, "the backward computes again what is not worth keeping"},
      // Before micro_batches: it reads where the forward ends off the body.
      {"residency", residency, "the backward gathers states anew: a gathered copy lives for the forward or the backward of a micro-batch"},
      // After optimize: the epilogue reads accumulators, which for M = 1 become the values themselves.
      {"micro_batches", micro_batches, "splits the body into first and rest x (M - 1)"},
      // After micro_batches: what an accumulator holds decides what is left to reduce.
      {"lower_reshards", lower_reshards, "reshards become collectives and local operations", Level::l3},
      // After remove_dead: a dispatch that something else reads too stays as it is.
      {"dedup_rows", dedup_rows, "a token goes once to each rank that holds some of its experts", Level::l3},
      // After lower_reshards: a chunk is one of what a rank holds.
      {"tile", tile, "the head runs in chunks of tokens: logits are never whole", Level::l3},
      // After lower_reshards: a reduction is a reader by then. Before flatten: states whose gradients differ in dtype are different groups.
      {"narrow_gradients", narrow_gradients,
       "weight gradients of experts, or all, keep the 16 bits of their product where nothing is added to them", Level::l3},
      // After lower_reshards: masters and copies that lie alike have nothing between them. After narrow_gradients, which knows adamw alone.
      {"split_masters", split_masters, "fp32 masters beside a copy in bf16 become what the copy leaves out of them", Level::l3},
      // Before flatten: which value a collective reads or writes on its own decides what lies in packs.
      {"bucket", bucket, "collectives of small tensors go together, and where they can run beside computation"},
      // After bucket: what a collective stands between is no pattern. After tile: the head's chunks fuse as the whole would.
      {"fuse", fuse, "nodes that a fused op names become one node", Level::l3},
      // After fuse: sums of products are einsum_add by then. Before flatten, which keeps the weights of a product together.
      {"join_products", join_products, "products of one operand, and sums of products, become one node", Level::l3},
      // After micro_batches: it needs the accumulators' final form to store them side by side. After lower_reshards: what is stored is the
      // rank's piece.
      {"flatten", flatten, "elementwise ops of the epilogue run once per group of states, over flat storage"},
  };
  return passes;
}

const Pass& find_pass(std::string_view name) {
  std::vector<std::string> names;
  for (const Pass& pass : training_passes()) {
    if (pass.name == name) return pass;
    names.emplace_back(pass.name);
  }
  user_error("unknown pass {}{}  (all: sheaf passes)", quote(name), did_you_mean(name, names));
}

Graph RunPasses::operator()(Graph graph, const std::vector<Pass>& passes, const Options& options) {
  if (dump) dump("model", graph);
  Level level = Level::l1;
  for (const Pass& pass : passes) {
    const auto begin = std::chrono::steady_clock::now();
    const Graph before = graph;
    try {
      graph = pass.run(std::move(graph), options);
      level = std::max(level, pass.holds);
      verify(graph, level);
    } catch (const InternalError& error) {
      // A bug of ours is reported with what reproduces it: sheaf opt FILE --pass NAME.
      const std::string path =
          (std::filesystem::temp_directory_path() / fmt::format("sheaf-before-{}-{}.ir", pass.name, ::getpid())).string();
      write_file_atomically(path, print(options) + print(before));
      throw InternalError(fmt::format("in pass {}: {}; its input is in {}", pass.name, error.what(), path));
    }
    times.push_back({pass.name, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count()});
    if (dump) dump(pass.name, graph);
  }
  return graph;
}

std::string passes_markdown() {
  std::string text =
      "# Passes\n\nGenerated by `sheaf passes --markdown`; the table is `src/passes/pipeline.cpp`, in the order of running.\n\n| pass | "
      "what it does |\n|---|---|\n";
  for (const Pass& pass : training_passes()) text += fmt::format("| `{}` | {} |\n", pass.name, pass.summary);
  return text;
}

// The one list of options: name and member.
template <class V>
static void visit(V&& v, auto& options) {
  v("decoupled_decay", options.decoupled_decay);
  v("eps", options.eps);
  v("weight_decay", options.weight_decay);
  v("clip", options.clip);
  v("balance_rate", options.balance_rate);
  v("mesh", options.mesh);
  v("tp_plan", options.tp_plan);
  v("zero_stage", options.zero_stage);
  v("persist", options.persist);
  v("shard_ranks", options.shard_ranks);
  v("gather_ranks", options.gather_ranks);
  v("expert_plan", options.expert_plan);
  v("expert_order", options.expert_order);
  v("num_micro_batches", options.num_micro_batches);
  v("tile_rows", options.tile_rows);
  v("recompute", options.recompute);
  v("recompute_blocks", options.recompute_blocks);
  v("bf16_moments", options.bf16_moments);
  v("bf16_gradients", options.bf16_gradients);
  v("split_masters", options.split_masters);
  v("gather_bucket", options.gather_bucket);
  v("reduce_bucket", options.reduce_bucket);
  v("update_bucket", options.update_bucket);
}

Options Options::parse(const Attrs& attrs) {
  Options options;
  for (const auto& entry : attrs.entries()) {
    std::vector<std::string> names;
    bool found = false;
    visit(
        [&]<class T>(const char* name, T& member) {
          names.emplace_back(name);
          if (entry.first != name) return;
          found = true;
          const Attr value = std::is_same_v<T, double> ? as_number(entry.second) : entry.second;
          if (!std::holds_alternative<T>(value))
            user_error("option {} is {}; wanted {}", name, print(Attrs{entry}), print(Attrs{{name, member}}));
          member = std::get<T>(value);
        },
        options);
    if (!found) user_error("unknown option {}{}", quote(entry.first), did_you_mean(entry.first, names));
  }
  if (options.num_micro_batches < 1) user_error("option num_micro_batches is {}; wanted an integer >= 1", options.num_micro_batches);
  return options;
}

std::string print(const Options& options) {
  Attrs attrs;
  visit([&](const char* name, const auto& member) { attrs.set(name, member); }, options);
  return "options " + print(attrs) + "\n";
}

IrFile parse_ir_file(std::string_view text, const OpTable& ops) {
  IrFile file;
  if (const std::size_t end = text.find("----\n"); end != std::string_view::npos) text = text.substr(0, end);
  if (text.starts_with("options ")) {
    const std::size_t line = text.find('\n');
    file.options = Options::parse(parse_attrs(text.substr(8, line - 8)));
    text = line == std::string_view::npos ? "" : text.substr(line + 1);
  }
  file.graph = parse_graph(text, ops);
  return file;
}

}    // namespace sheaf
