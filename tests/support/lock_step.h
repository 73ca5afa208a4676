#pragma once
// A placed program on simulated ranks, run in lock-step in one thread in integer mode: every value has a piece per rank. A move between
// placements glues the pieces and cuts them anew, so what is tested is the graph: placements, rules, and the order of things.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "runtime/interpret.h"

namespace sheaf::testing {

using Pieces = std::vector<at::Tensor>;    // per rank

class LockStep {
 public:
  explicit LockStep(const Graph& graph) : graph_(graph), ranks_(graph.mesh.num_ranks()) {
    for (const Value v : graph.all(ValueKind::constant)) {
      at::Tensor t = at::empty(graph.type(v).shape, at::kDouble);
      std::copy(graph[v].data.begin(), graph[v].data.end(), t.data_ptr<double>());
      give(v, t.to(at::kLong));
    }
  }
  void give(Value v, const at::Tensor& whole) { pieces_[v.id] = cut(whole, graph_.type(v).placement); }

  void run(Segment segment) {
    for (const Node& node : graph_.nodes(segment))
      if (is_move(*node.op)) {
        for (std::size_t i = 0; i < node.in.size(); ++i) pieces_[node.out[i].id] = cut(whole(node.in[i]), graph_.type(node.out[i]).placement);
      } else {
        run(node);
      }
  }

  // The tensor that the pieces denote. Replicas that differ are a failure.
  at::Tensor whole(Value v) const {
    const Type& type = graph_.type(v);
    const Pieces& pieces = pieces_.at(v.id);
    const bool max = type.placement.reduction == Reduction::max && type.placement.partial != 0;
    at::Tensor out = at::full(type.shape, max ? std::numeric_limits<std::int64_t>::min() : 0, at::kLong);
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      const std::int64_t first = without_replicas(rank, type.placement);
      if (first != rank) {
        EXPECT_TRUE(piece_of(pieces, rank).equal(piece_of(pieces, first))) << name_of(graph_, v) << ": replicas differ";
        continue;
      }
      const at::Tensor box = slice(out, type.placement, rank);
      const at::Tensor all = box.clone(at::MemoryFormat::Contiguous).view(type.placement.flat.empty() ? box.sizes().vec() : Shape{-1});
      at::Tensor part = flat_part(all, type, rank);
      part.copy_(max ? at::maximum(part, piece_of(pieces, rank)) : part.add(piece_of(pieces, rank)));
      box.copy_(all.view(box.sizes()));
    }
    return out;
  }

 private:
  static const at::Tensor& piece_of(const Pieces& pieces, std::int64_t rank) { return pieces[static_cast<std::size_t>(rank)]; }
  at::Tensor slice(at::Tensor t, const Placement& placement, std::int64_t rank) const {
    const auto box = local_box(t.sizes().vec(), placement, graph_.mesh, rank);
    for (std::size_t d = 0; d < box.size(); ++d) t = t.slice(static_cast<std::int64_t>(d), box[d].first, box[d].second);
    return t;
  }
  at::Tensor flat_part(const at::Tensor& box, const Type& type, std::int64_t rank) const {
    if (type.placement.flat.empty()) return box;
    const auto [begin, end] = local_flat(type.shape, type.placement, graph_.mesh, rank);
    return box.slice(0, begin, end);
  }
  // The rank with the same coordinates on the atoms that cut or are partial, 0 on all others.
  std::int64_t without_replicas(std::int64_t rank, const Placement& placement) const {
    std::int64_t first = 0;
    for (std::size_t a = 0; a < graph_.mesh.atoms.size(); ++a) {
      const bool matters = (placement.partial | placement.cut()) >> a & 1;
      first = first * graph_.mesh.atoms[a].size + (matters ? graph_.mesh.coordinate(rank, static_cast<Atom>(a)) : 0);
    }
    return first;
  }
  // Partial: coordinate 0 has the value, the others 0.
  Pieces cut(const at::Tensor& whole, const Placement& placement) const {
    Pieces pieces;
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      bool holds = true;
      for (std::size_t a = 0; a < graph_.mesh.atoms.size(); ++a)
        holds &= !(placement.partial >> a & 1) || graph_.mesh.coordinate(rank, static_cast<Atom>(a)) == 0;
      const at::Tensor box = slice(whole.to(at::kLong), placement, rank).contiguous();
      const at::Tensor piece =
          flat_part(placement.flat.empty() ? box : box.flatten(), {DType::i64, whole.sizes().vec(), placement}, rank).contiguous();
      pieces.push_back(holds ? piece.clone() : at::zeros(piece.sizes(), at::kLong));
    }
    return pieces;
  }

  void run(const Node& node) {
    const Rule rule = rule_for(*node.op, node.attrs, graph_.types(node.in));
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      std::vector<at::Tensor> in, out;
      std::int64_t owner_begin = 0;
      std::size_t p = 0;
      for (const Value v : node.in) {
        in.push_back(v ? piece_of(pieces_.at(v.id), rank) : at::Tensor());
        if (!v) continue;
        const Type& type = graph_.type(v);
        const auto box = local_box(type.shape, type.placement, graph_.mesh, rank);
        for (std::size_t d = 0; d < rule.in[p].size(); ++d)
          if (rule.owner.contains(rule.in[p][d])) owner_begin = box[d].first;
        ++p;
      }
      for (const Value v : node.out)
        out.push_back(at::empty(local_shape(graph_.type(v).shape, graph_.type(v).placement, graph_.mesh, rank), at::kLong));
      integer_kernel(*node.op, rule, Args{in, out, node.attrs, owner_begin});
      for (std::size_t o = 0; o < out.size(); ++o) {
        Pieces& pieces = pieces_[node.out[o].id];
        pieces.resize(static_cast<std::size_t>(ranks_));
        pieces[static_cast<std::size_t>(rank)] = out[o];
      }
    }
  }

  const Graph& graph_;
  std::int64_t ranks_;
  std::map<int, Pieces> pieces_;
};

}    // namespace sheaf::testing
