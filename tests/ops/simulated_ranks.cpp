#include "ops/simulated_ranks.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>

#include <algorithm>

namespace sheaf::testing {

Placed replicate(const at::Tensor& whole, int ranks) { return {.pieces = std::vector<at::Tensor>(static_cast<std::size_t>(ranks), whole)}; }

Placed shard(const at::Tensor& whole, std::size_t dim, int ranks) {
  Placed out{.kind = Placed::Kind::sharded, .dim = dim, .pieces = {}};
  for (int r = 0; r < ranks; ++r) {
    const auto [begin, end] = piece(whole.size(static_cast<std::int64_t>(dim)), ranks, r);
    out.pieces.push_back(whole.slice(static_cast<std::int64_t>(dim), begin, end).contiguous());
  }
  return out;
}

Placed split_partial(const at::Tensor& whole, int ranks, Mode mode, std::mt19937_64& rng) {
  Placed out{.kind = Placed::Kind::partial, .pieces = {}};
  at::Tensor rest = whole;
  for (int r = 1; r < ranks; ++r) {
    out.pieces.push_back(random_tensor(whole.sizes().vec(), mode, rng));
    rest = rest.sub(out.pieces.back());
  }
  out.pieces.push_back(rest);
  return out;
}

bool same(const at::Tensor& a, const at::Tensor& b, Mode mode) {
  if (a.sizes() != b.sizes()) return false;
  // fp64: another order of a sum of a few dozen terms of order 1 moves it by less than 1e-14; 1e-11 also covers softmax and norms.
  return mode == Mode::integer || a.scalar_type() != at::kDouble ? a.equal(b) : at::allclose(a, b, 1e-11, 1e-11);
}

at::Tensor glue(const Placed& placed) {
  if (placed.kind == Placed::Kind::sharded) return at::cat(placed.pieces, static_cast<std::int64_t>(placed.dim));
  at::Tensor whole = placed.pieces[0];
  if (placed.kind == Placed::Kind::replicated) return whole;
  for (std::size_t r = 1; r < placed.pieces.size(); ++r)
    whole = placed.reduction == Reduction::max   ? at::maximum(whole, placed.pieces[r])
            : placed.reduction == Reduction::min ? at::minimum(whole, placed.pieces[r])
                                                 : whole.add(placed.pieces[r]);
  return whole;
}

std::vector<Placed> run_ranks(const Call& call, const Rule& rule, const std::vector<Placed>& in, const std::string& sharded, bool through,
                              Mode mode) {
  const std::size_t ranks = in[call.present[0]].pieces.size();
  std::vector<Placed> out(rule.out.size());
  for (std::size_t o = 0; o < rule.out.size(); ++o) {
    const auto at = std::find(rule.out[o].begin(), rule.out[o].end(), sharded);
    if (sharded.empty())
      out[o].kind = through ? Placed::Kind::partial : Placed::Kind::replicated;
    else if (at != rule.out[o].end())
      out[o] = {.kind = Placed::Kind::sharded, .dim = static_cast<std::size_t>(at - rule.out[o].begin()), .pieces = {}};
    else
      out[o] = {.kind = Placed::Kind::partial, .reduction = rule.reduction, .pieces = {}};
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    std::vector<at::Tensor> local(in.size());
    std::int64_t owner_begin = 0;
    for (std::size_t p = 0; p < call.present.size(); ++p) {
      const std::size_t i = call.present[p];
      local[i] = in[i].pieces[r];
      if (rule.owner.contains(sharded))
        for (std::size_t d = 0; d < rule.in[p].size(); ++d)
          if (rule.in[p][d] == sharded)
            owner_begin =
                piece(call.in[i].size(static_cast<std::int64_t>(d)), static_cast<std::int64_t>(ranks), static_cast<std::int64_t>(r)).first;
    }
    auto pieces = call.run_on(local, owner_begin, mode);
    for (std::size_t o = 0; o < out.size(); ++o) out[o].pieces.push_back(pieces[o]);
  }
  return out;
}

namespace {

std::string name_of_operand(const OpDef& op, std::size_t i) { return std::string(op.operands[std::min(i, op.operands.size() - 1)]); }
bool listed(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Which operands stay partial when none is sharded: all of `add`, or one of `linear`.
std::vector<bool> passing(const Call& call, const std::vector<Placed>& in) {
  std::vector<bool> partial(in.size()), add(in.size()), none(in.size());
  for (const std::size_t i : call.present) {
    partial[i] = in[i].kind == Placed::Kind::partial && in[i].reduction == Reduction::sum;
    add[i] = listed(call.rule.add, name_of_operand(*call.op, i));
  }
  if (partial == none || partial == add) return partial;
  for (const std::size_t i : call.present)
    if (partial[i] && listed(call.rule.linear, name_of_operand(*call.op, i))) {
      none[i] = true;
      break;
    }
  return none;
}

}    // namespace

void PartitionedRun::run(const Node& node) {
  const Types types = graph_.types(node.in);
  Call call{node.op, node.attrs, rule_for(*node.op, node.attrs, types), {}, std::vector<at::Tensor>(node.in.size()), {}, {}};
  std::vector<Placed> in(node.in.size());
  for (std::size_t i = 0; i < node.in.size(); ++i) {
    if (!node.in[i]) continue;
    in[i] = (*this)[node.in[i]];
    call.in[i] = at::empty(types[i]->shape);    // asked for its shape only
    call.in_types.push_back(*types[i]);
    call.present.push_back(i);
  }
  std::string factor;
  for (std::size_t p = 0; p < call.present.size() && factor.empty(); ++p)
    if (const Placed& x = in[call.present[p]]; x.kind == Placed::Kind::sharded && !call.rule.is_full(call.rule.in[p][x.dim]))
      factor = call.rule.in[p][x.dim];
  const std::vector<bool> passes = factor.empty() ? passing(call, in) : std::vector<bool>(in.size());
  for (std::size_t p = 0; p < call.present.size(); ++p) {
    Placed& x = in[call.present[p]];
    const auto at = std::find(call.rule.in[p].begin(), call.rule.in[p].end(), factor);
    const auto dim = static_cast<std::size_t>(at - call.rule.in[p].begin());
    const bool has_factor = at != call.rule.in[p].end();
    const bool stays =
        passes[call.present[p]] || (has_factor ? x.kind == Placed::Kind::sharded && x.dim == dim : x.kind == Placed::Kind::replicated);
    if (!stays) x = has_factor ? shard(glue(x), dim, ranks_) : replicate(glue(x), ranks_);
  }
  const bool through = std::find(passes.begin(), passes.end(), true) != passes.end();
  const std::vector<Placed> out = run_ranks(call, call.rule, in, factor, through, mode_);
  for (std::size_t o = 0; o < out.size(); ++o) give(node.out[o], out[o]);
}

void PartitionedRun::run(Segment segment) {
  for (const Node& node : graph_.nodes(segment)) run(node);
}

}    // namespace sheaf::testing
