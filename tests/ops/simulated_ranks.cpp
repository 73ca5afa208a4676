#include "ops/simulated_ranks.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
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

std::vector<Placed> run_ranks(const Call& call, const Rule& rule, const std::vector<Placed>& in, const std::string& sharded, bool through, Mode mode) {
  const std::size_t ranks = in[call.present[0]].pieces.size();
  std::vector<Placed> out(rule.out.size());
  for (std::size_t o = 0; o < rule.out.size(); ++o) {
    const auto at = std::find(rule.out[o].begin(), rule.out[o].end(), sharded);
    if (sharded.empty()) out[o].kind = through ? Placed::Kind::partial : Placed::Kind::replicated;
    else if (at != rule.out[o].end()) out[o] = {.kind = Placed::Kind::sharded, .dim = static_cast<std::size_t>(at - rule.out[o].begin()), .pieces = {}};
    else out[o] = {.kind = Placed::Kind::partial, .reduction = rule.reduction, .pieces = {}};
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    std::vector<at::Tensor> local(in.size());
    std::int64_t owner_begin = 0;
    for (std::size_t p = 0; p < call.present.size(); ++p) {
      const std::size_t i = call.present[p];
      local[i] = in[i].pieces[r];
      if (rule.owner.contains(sharded))
        for (std::size_t d = 0; d < rule.in[p].size(); ++d)
          if (rule.in[p][d] == sharded) owner_begin = piece(call.in[i].size(static_cast<std::int64_t>(d)), static_cast<std::int64_t>(ranks), static_cast<std::int64_t>(r)).first;
    }
    auto pieces = call.run_on(local, owner_begin, mode);
    for (std::size_t o = 0; o < out.size(); ++o) out[o].pieces.push_back(pieces[o]);
  }
  return out;
}

}    // namespace sheaf::testing
