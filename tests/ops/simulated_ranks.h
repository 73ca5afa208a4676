#pragma once
// A tensor over n simulated ranks on one mesh atom: sharded on a dim, replicated, or partial. Run one after the other in one thread.
#include <map>

#include "ops/op_cases.h"

namespace sheaf::testing {

struct Placed {
  enum class Kind { replicated, sharded, partial } kind = Kind::replicated;
  std::size_t dim = 0;
  Reduction reduction = Reduction::sum;
  std::vector<at::Tensor> pieces;    // per rank
};

Placed replicate(const at::Tensor& whole, int ranks);
Placed shard(const at::Tensor& whole, std::size_t dim, int ranks);
// Unequal parts that sum to the whole: asymmetric, so that a part taken for the whole is seen.
Placed split_partial(const at::Tensor& whole, int ranks, Mode mode, std::mt19937_64& rng);

// The value that the pieces denote; replicas that differ are a test failure.
at::Tensor glue(const Placed& placed);

// Runs the kernel of `call` on every rank with these operands, and reads the outputs' placements off the rule.
// `sharded`: the factor that is cut, "" if none; `through`: whether some operand is partial.
std::vector<Placed> run_ranks(const Call& call, const Rule& rule, const std::vector<Placed>& in, const std::string& sharded, bool through,
                              Mode mode);

// A graph on the ranks, placements tracked by the rules alone. A node's sharded operands decide the factor that is cut: the first one that
// may be; operands that have the factor are sliced to it, all others are gathered or reduced. With nothing sharded a partial passes where
// the rule says linear or add; otherwise it is reduced.
class PartitionedRun {
 public:
  PartitionedRun(const Graph& graph, int ranks, Mode mode) : graph_(graph), ranks_(ranks), mode_(mode) {}
  void give(Value v, Placed placed) { placed_[v.id] = std::move(placed); }
  void run(Segment segment);
  const Placed& operator[](Value v) const { return placed_.at(v.id); }

 private:
  void run(const Node& node);
  const Graph& graph_;
  int ranks_;
  Mode mode_;
  std::map<int, Placed> placed_;
};

bool same(const at::Tensor& a, const at::Tensor& b, Mode mode);

}    // namespace sheaf::testing
