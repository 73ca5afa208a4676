#pragma once
// A pass is one function, one row in pipeline.cpp and one golden test: it reads the graph and its own options, nothing else.
#include <functional>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace sheaf {

// What the passes may be told; printed in dumps. One field belongs to one pass.
struct Options {
  // optimize
  bool decoupled_decay = true;
  double eps = 1e-8, weight_decay = 0, clip = 1.0;
  double balance_rate = 0;    // of correction biases of routers; 0: they stay
  // anchor: "mesh ... axes ..." as graphs print it, and HuggingFace's tp_plan; empty: one rank
  std::string mesh, tp_plan;
  std::int64_t zero_stage = 0;
  std::int64_t persist = 0;         // stage 3: parameters of at most so many elements stay whole where they are used
  std::int64_t shard_ranks = 0;     // states are cut over groups of so many ranks (MiCS, HSDP); 0: over all that replicate them
  std::int64_t gather_ranks = 0;    // stage 3: parameters for use are cut over groups of so many ranks (hpZ); 0: as the states
  // propagate, dedup_rows: how tokens meet experts that are cut over ranks: exact, dedup, gather (docs/experts.md)
  std::string expert_plan = "exact";
  // anchor: which expert lies where: "3 1 0 2" in each layer, layers separated by ';', or one for all; empty: in order
  std::string expert_order;
  // micro_batches
  std::int64_t num_micro_batches = 1;
  // tile: tokens of a rank that the head works on at once; 0: all
  std::int64_t tile_rows = 0;
  // recompute: none, selective, block; in the first so many blocks (what lies between sums of the residual stream), and the next cheaper
  // one in those behind them; -1: in all
  std::string recompute = "none";
  std::int64_t recompute_blocks = -1;
  // optimize: both moments are stored in bf16
  bool bf16_moments = false;
  // narrow_gradients: of all products, not of experts' alone
  bool bf16_gradients = false;
  // split_masters: whether it does anything
  bool split_masters = false;
  // bucket: elements of a collective at most; 0: every tensor on its own
  std::int64_t gather_bucket = 0, reduce_bucket = 0, update_bucket = 0;

  static Options parse(const Attrs& attrs);    // from "{num_micro_batches=2}"; throws UserError for an unknown name or a wrong type
};
std::string print(const Options& options);    // "options {...}\n": the first line of a dump

// A graph in a file: an "options" line first, if any; what follows a line "----" is not read (golden tests keep the result there).
struct IrFile {
  Options options;
  Graph graph;
};
IrFile parse_ir_file(std::string_view text, const OpTable& ops);    // throws UserError

struct Pass {
  std::string_view name;
  Graph (*run)(Graph, const Options&);
  std::string_view summary;
  Level holds = Level::l1;    // what holds after it, and after those that follow
};

// ---- one declaration per pass; each .cpp states entry and exit conditions
Graph differentiate(Graph graph, const Options& options);
Graph fuse_softmax_grad(Graph graph, const Options& options);
Graph optimize(Graph graph, const Options& options);
Graph micro_batches(Graph graph, const Options& options);
Graph flatten(Graph graph, const Options& options);
Graph anchor(Graph graph, const Options& options);
Graph propagate(Graph graph, const Options& options);
Graph residency(Graph graph, const Options& options);
Graph lower_reshards(Graph graph, const Options& options);
Graph bucket(Graph graph, const Options& options);
Graph dedup_rows(Graph graph, const Options& options);
Graph recompute(Graph graph, const Options& options);
Graph tile(Graph graph, const Options& options);
Graph fuse(Graph graph, const Options& options);
Graph join_products(Graph graph, const Options& options);
Graph narrow_gradients(Graph graph, const Options& options);
Graph split_masters(Graph graph, const Options& options);
Graph remove_dead(Graph graph, const Options& options);

// The passes of a training step, in order. The only place that orders them.
const std::vector<Pass>& training_passes();
const Pass& find_pass(std::string_view name);    // throws UserError naming the nearest

// Runs a list of passes: times each, verifies its result, hands the graph to `dump`. An error of ours says "in pass NAME" and where the
// pass's input was written, which `sheaf opt FILE --pass NAME` runs again.
struct PassTime {
  std::string_view name;
  double seconds;
};
struct RunPasses {
  std::function<void(std::string_view pass, const Graph&)> dump;
  std::vector<PassTime> times;
  Graph operator()(Graph graph, const std::vector<Pass>& passes, const Options& options);
};

std::string passes_markdown();    // docs/passes.md

}    // namespace sheaf
