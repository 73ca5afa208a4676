#pragma once
// A placed program on simulated ranks, run in lock-step in one thread in integer mode: every value has a piece per rank. Moves work on
// pieces as ranks would: each takes from the ranks of its group what lies in its own box. So a program whose moves are wrong gets the wrong
// numbers that real ranks would get.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>

#include "base/error.h"
#include "mesh/boxes.h"
#include "runtime/interpret.h"

namespace sheaf::testing {

using Pieces =
    std::vector<at::Tensor>;    // per rank. Never written once made: ranks that hold the same share a tensor, which saves most of the time

class LockStep {
 public:
  // A wrong partitioner: called after every move, for each operand; may replace what came out.
  using Fault = std::function<void(const LockStep&, const Node&, std::size_t operand, const Pieces& in, Pieces& out)>;

  explicit LockStep(const Graph& graph, Fault fault = {}) : graph_(graph), ranks_(graph.mesh.num_ranks()), fault_(std::move(fault)) {
    for (const Value v : graph.all(ValueKind::constant)) {
      at::Tensor t = at::empty(graph.type(v).shape, at::kDouble);
      std::copy(graph[v].data.begin(), graph[v].data.end(), t.data_ptr<double>());
      give(v, t.to(at::kLong));
    }
  }
  const Graph& graph() const { return graph_; }
  std::int64_t num_ranks() const { return ranks_; }

  void give(Value v, const at::Tensor& whole) { pieces_[v.id] = cut(whole, graph_.type(v).placement); }

  void run(Segment segment) {
    for (const Node& node : graph_.nodes(segment)) run(node);
  }
  void run(const Node& node) {
    if (is_move(*node.op))
      for (std::size_t i = 0; i < node.out.size(); ++i) {    // routed rows move as what they mean: whole pieces
        const Pieces& in = pieces_.at(node.in[i].id);
        Pieces out = moved(in, graph_.type(node.in[i]), graph_.type(node.out[i]));
        if (fault_) fault_(*this, node, i, in, out);
        pieces_[node.out[i].id] = std::move(out);
      }
    else if (exchanges_rows(*node.op))
      exchange(node);
    else if (node.op->name == "set")    // pieces are never written: the target gets others
      pieces_[node.in[0].id] = pieces_.at(node.in[1].id);
    else
      compute(node);
  }

  // The tensor that the pieces denote. InternalError if replicas differ.
  at::Tensor whole(Value v) const {
    const Type& type = graph_.type(v);
    const Pieces& pieces = pieces_.at(v.id);
    at::Tensor out = nothing(type.placement, type.shape);
    const Box all = whole_box(type.shape);
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      const at::Tensor& piece = pieces[static_cast<std::size_t>(rank)];
      SHEAF_CHECK(piece.sizes() == local_shape(type.shape, type.placement, graph_.mesh, rank), "{}: rank {} holds {} elements",
                  name_of(graph_, v), rank, piece.numel());
      const std::int64_t first = without_replicas(rank, type.placement);
      if (first != rank) {
        const at::Tensor& other = pieces[static_cast<std::size_t>(first)];
        SHEAF_CHECK(piece.is_same(other) || piece.equal(other), "{}: ranks {} and {} hold different replicas", name_of(graph_, v), first,
                    rank);
        continue;
      }
      const Box box = local_box(type.shape, type.placement, graph_.mesh, rank);
      if (type.placement.flat.empty()) {
        join(data(out), all, data(piece), box, box, type.placement);
        continue;
      }
      const auto [begin, end] = local_flat(type.shape, type.placement, graph_.mesh, rank);
      const std::int64_t* from = data(piece);
      for (const Box& part : boxes_of_flat(box, begin, end)) {
        join(data(out), all, from, part, part, type.placement);
        from += num_elements(part);
      }
    }
    return out;
  }

  // Ranks that differ from `rank` in these atoms only, in order of their coordinates, the first atom major.
  std::vector<std::int64_t> group(std::int64_t rank, const std::vector<Atom>& over) const {
    std::vector<std::int64_t> out;
    for (std::int64_t i = 0; i < graph_.mesh.size(over); ++i) {
      std::int64_t peer = rank, rest = i;
      for (std::size_t j = over.size(); j-- > 0; rest /= graph_.mesh.atoms[over[j]].size)
        peer += (rest % graph_.mesh.atoms[over[j]].size - graph_.mesh.coordinate(rank, over[j])) * stride(over[j]);
      out.push_back(peer);
    }
    return out;
  }

 private:
  std::int64_t stride(Atom atom) const {
    std::int64_t n = 1;
    for (std::size_t a = graph_.mesh.atoms.size(); --a > atom;) n *= graph_.mesh.atoms[a].size;
    return n;
  }
  static at::Tensor slice(at::Tensor t, const Box& box) {
    for (std::size_t d = 0; d < box.size(); ++d)
      if (box[d].first != 0 || box[d].second != t.size(static_cast<std::int64_t>(d)))
        t = t.slice(static_cast<std::int64_t>(d), box[d].first, box[d].second);
    return t;
  }
  // What a sum, a maximum, a minimum begins with.
  static at::Tensor nothing(const Placement& p, const Shape& shape) {
    if (p.partial == 0 || p.reduction == Reduction::sum) return at::zeros(shape, at::kLong);
    using Limits = std::numeric_limits<std::int64_t>;
    return at::full(shape, p.reduction == Reduction::max ? Limits::min() : Limits::max(), at::kLong);
  }
  static std::int64_t* data(const at::Tensor& t) { return t.data_ptr<std::int64_t>(); }
  // Of contiguous tensors that hold these boxes: the part goes into the sum, maximum, minimum, or is copied. By hand: a call of ATen takes
  // longer than such a piece.
  static void join(std::int64_t* to, const Box& to_box, const std::int64_t* from, const Box& from_box, const Box& part, const Placement& p,
                   std::size_t d = 0) {
    if (d == part.size()) {
      if (p.partial == 0)
        *to = *from;
      else if (p.reduction == Reduction::sum)
        *to = static_cast<std::int64_t>(static_cast<std::uint64_t>(*to) + static_cast<std::uint64_t>(*from));
      else
        *to = p.reduction == Reduction::max ? std::max(*to, *from) : std::min(*to, *from);
      return;
    }
    std::int64_t to_row = 1, from_row = 1;
    for (std::size_t e = d + 1; e < part.size(); ++e)
      to_row *= to_box[e].second - to_box[e].first, from_row *= from_box[e].second - from_box[e].first;
    for (std::int64_t i = part[d].first; i < part[d].second; ++i)
      join(to + (i - to_box[d].first) * to_row, to_box, from + (i - from_box[d].first) * from_row, from_box, part, p, d + 1);
  }
  bool has(std::uint32_t atoms, Atom atom) const { return atoms >> atom & 1; }
  // The rank with the same coordinates on these atoms, 0 on all others.
  std::int64_t only(std::int64_t rank, std::uint32_t atoms) const {
    std::int64_t out = 0;
    for (std::size_t a = 0; a < graph_.mesh.atoms.size(); ++a)
      out = out * graph_.mesh.atoms[a].size + (atoms >> a & 1 ? graph_.mesh.coordinate(rank, static_cast<Atom>(a)) : 0);
    return out;
  }
  std::int64_t without_replicas(std::int64_t rank, const Placement& p) const { return only(rank, p.partial | p.cut()); }
  bool is_zero_on(std::int64_t rank, std::uint32_t atoms) const { return only(rank, atoms) == 0; }

  // Partial: coordinate 0 has the value, the others 0.
  Pieces cut(const at::Tensor& whole, const Placement& p) const {
    Pieces pieces;
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      if (const std::int64_t first = without_replicas(rank, p); first != rank) {
        pieces.push_back(pieces[static_cast<std::size_t>(first)]);
        continue;
      }
      at::Tensor piece = slice(whole.to(at::kLong), local_box(whole.sizes().vec(), p, graph_.mesh, rank));
      if (!p.flat.empty()) {
        const auto [begin, end] = local_flat(whole.sizes().vec(), p, graph_.mesh, rank);
        piece = piece.flatten().slice(0, begin, end);
      }
      pieces.push_back(is_zero_on(rank, p.partial) ? piece.clone(at::MemoryFormat::Contiguous) : at::zeros(piece.sizes(), at::kLong));
    }
    return pieces;
  }

  // Where an atom cuts: (dim, place among the atoms of the dim); flat is the dim behind the last.
  static std::pair<std::size_t, std::size_t> site(const Placement& p, std::size_t ndim, Atom atom) {
    for (std::size_t d = 0; d <= ndim; ++d) {
      const std::vector<Atom>& atoms = d < ndim ? p.dim(d) : p.flat;
      for (std::size_t i = 0; i < atoms.size(); ++i)
        if (atoms[i] == atom) return {d, i};
    }
    return {SIZE_MAX, 0};
  }
  Pieces moved(const Pieces& in, const Type& from_type, const Type& to_type) const {
    const Placement &from = from_type.placement, &to = to_type.placement;
    const Shape& shape = from_type.shape;
    // Whom a rank hears: over atoms in which the two differ and which made ranks hold different things. Of replicas it is its own.
    std::vector<Atom> over;
    const std::uint32_t reduced = from.partial & ~to.partial, made = to.partial & ~from.partial;
    for (std::size_t a = 0; a < graph_.mesh.atoms.size(); ++a) {
      const Atom atom = static_cast<Atom>(a);
      if (has(reduced, atom) || (has(from.cut(), atom) && site(from, shape.size(), atom) != site(to, shape.size(), atom)))
        over.push_back(atom);
    }
    const bool flat = from.flat != to.flat;
    SHEAF_CHECK(!flat || from.dims == to.dims || (Placement{.dims = from.dims}.replicated() && Placement{.dims = to.dims}.replicated()),
                "dims and the flat cut change in one move");
    const auto held = [&](const Placement& p, std::int64_t rank) {
      return flat || !p.flat.empty() ? Box{local_flat(shape, p, graph_.mesh, rank)} : local_box(shape, p, graph_.mesh, rank);
    };
    const Placement sum{.dims = {}, .partial = reduced, .reduction = from.reduction};
    std::map<std::vector<std::int64_t>, at::Tensor> same;
    Pieces out;
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      const std::vector<std::int64_t> members = group(rank, over);
      const Box mine = held(to, rank);
      const bool keeps = is_zero_on(rank, made);
      std::vector<std::int64_t> key = {keeps};
      for (const std::int64_t peer : members)
        key.push_back(reinterpret_cast<std::intptr_t>(in[static_cast<std::size_t>(peer)].unsafeGetTensorImpl()));
      for (const auto& [begin, end] : mine) key.push_back(begin), key.push_back(end);
      at::Tensor& piece = same[key];
      if (!piece.defined()) {
        const Shape wanted = local_shape(shape, to, graph_.mesh, rank);
        at::Tensor all = nothing(sum, shape_of(mine));
        for (const std::int64_t peer : members) {
          if (!keeps) break;
          const Box theirs = held(from, peer);
          const auto part = common_part(theirs, mine);
          if (!part) continue;
          join(data(all), mine, data(in[static_cast<std::size_t>(peer)]), theirs, *part, sum);
        }
        piece = all.view(wanted);
      }
      out.push_back(piece);
    }
    return out;
  }

  // Rows move as what they mean: whole pieces. The dispatch before, or the combine behind, is made where the tokens are.
  void exchange(const Node& node) {
    const bool dispatches = node.op->name == "exchange_dispatch", combines = node.op->name == "exchange_combine";
    Type from = graph_.type(node.in[0]), to = graph_.type(node.out[0]);
    Pieces x = pieces_.at(node.in[0].id);
    const auto at_tokens = [&](const Type& rows) {
      Type type = rows;
      const Placement& tokens = graph_.type(node.in.back()).placement;
      for (std::size_t d = 0; d < 3; ++d) type.placement.dims[d] = tokens.dim(d);
      return type;
    };
    if (dispatches) from = at_tokens(to), x = on_tokens(node, x, from);
    const Type rows = combines ? at_tokens(from) : to;
    Pieces out = moved(x, from, rows);
    if (fault_) fault_(*this, node, 0, x, out);
    pieces_[node.out[0].id] = combines ? on_tokens(node, out, to) : out;
  }
  Pieces on_tokens(const Node& node, const Pieces& x, const Type& to) const {
    Pieces result;
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      const auto r = static_cast<std::size_t>(rank);
      std::vector<at::Tensor> in = {x[r], pieces_.at(node.in[1].id)[r]},
                              out = {at::empty(local_shape(to.shape, to.placement, graph_.mesh, rank), at::kLong)};
      node.op->meaning(Args{in, out, node.attrs});
      result.push_back(out[0]);
    }
    return result;
  }

  // A flat piece has one dim, whatever the tensor has.
  Rule rule_of_pieces(const Node& node) const {
    std::vector<Type> flat(node.in.size());
    Types types = graph_.types(node.in);
    for (std::size_t i = 0; i < types.size(); ++i)
      if (types[i] && !types[i]->placement.flat.empty()) {
        flat[i] = {types[i]->dtype, {num_elements(types[i]->shape)}, {}};
        types[i] = &flat[i];
      }
    return rule_for(*node.op, node.attrs, types);
  }

  void compute(const Node& node) {
    const Rule rule = rule_of_pieces(node);
    std::vector<Pieces> outputs(node.out.size());
    std::map<std::vector<std::int64_t>, std::size_t> same;    // rank that computed with the same operands
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      std::vector<at::Tensor> in, out;
      std::vector<std::int64_t> key;
      for (const Value v : node.in) {
        in.push_back(v ? pieces_.at(v.id)[static_cast<std::size_t>(rank)] : at::Tensor());
        if (v) key.push_back(reinterpret_cast<std::intptr_t>(in.back().unsafeGetTensorImpl()));
      }
      const auto owned = owned_piece(rule, graph_.types(node.in), graph_.types(node.out), graph_.mesh, rank);
      key.push_back(owned.first), key.push_back(owned.second);
      for (const Value v : node.out) {
        const Shape shape = local_shape(graph_.type(v).shape, graph_.type(v).placement, graph_.mesh, rank);
        key.insert(key.end(), shape.begin(), shape.end());
        out.push_back(at::empty(shape, at::kLong));
      }
      const auto [known, fresh] = same.emplace(key, static_cast<std::size_t>(rank));
      if (fresh) integer_kernel(*node.op, rule, Args{in, out, node.attrs, owned.first, owned.second});
      for (std::size_t o = 0; o < out.size(); ++o) outputs[o].push_back(fresh ? out[o] : outputs[o][known->second]);
    }
    for (std::size_t o = 0; o < outputs.size(); ++o) pieces_[node.out[o].id] = std::move(outputs[o]);
  }

  const Graph& graph_;
  std::int64_t ranks_;
  Fault fault_;
  std::map<int, Pieces> pieces_;
};

}    // namespace sheaf::testing
