#include "runtime/collectives.h"

#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/sum.h>

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "mesh/reshard_plan.h"
#include "ops/aten.h"
#include "runtime/scratch.h"

namespace sheaf {
namespace {

using Ranges = std::vector<std::pair<std::int64_t, std::int64_t>>;

constexpr std::int64_t kAlign = 256;
std::int64_t aligned(std::int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }
// Up to here an all_reduce sends everything to everyone: one message in place of two, of latency alone.
constexpr std::int64_t kSmallAllReduce = 16 * 1024;

Ranges common(const Ranges& a, const Ranges& b) {
  Ranges out;
  for (std::size_t d = 0; d < a.size(); ++d) {
    const std::int64_t begin = std::max(a[d].first, b[d].first);
    out.emplace_back(begin, std::max(begin, std::min(a[d].second, b[d].second)));
  }
  return out;
}
std::int64_t count(const Ranges& ranges) {
  std::int64_t n = 1;
  for (const auto& [begin, end] : ranges) n *= end - begin;
  return n;
}
// A part of a contiguous tensor that holds `held`.
at::Tensor part_of(const at::Tensor& tensor, const Ranges& held, const Ranges& part) {
  at::Tensor view = tensor;
  for (std::size_t d = 0; d < part.size(); ++d)
    view = view.slice(static_cast<std::int64_t>(d), part[d].first - held[d].first, part[d].second - held[d].first);
  return view;
}
// Do the elements of `part` stand one after the other in a contiguous tensor that holds `held`?
bool is_run(const Ranges& held, const Ranges& part) {
  bool inner = true;    // all dims behind are taken whole
  for (std::size_t d = held.size(); d-- > 0;) {
    const std::int64_t n = part[d].second - part[d].first, all = held[d].second - held[d].first;
    if (!inner && n > 1) return count(part) == 0;
    if (n != all) inner = false;
  }
  return true;
}
// Where a run begins.
std::int64_t offset_in(const Ranges& held, const Ranges& part) {
  std::int64_t offset = 0;
  for (std::size_t d = 0; d < held.size(); ++d) offset = offset * (held[d].second - held[d].first) + part[d].first - held[d].first;
  return offset;
}

// What a rank exchanges with one member of the group.
struct Piece {
  Ranges part;
  std::int64_t staged = -1;    // bytes from the start of the scratch; -1: sent from, or received to, where it lies
};

// Pieces of one tensor that go between the ranks of a group.
struct Traffic {
  Ranges source, target;            // what this rank holds before and behind
  std::vector<Piece> send, recv;    // by member
  bool sums = false;                // the received pieces are terms of what this rank holds behind
  std::int64_t terms = -1;          // where they are staged, one after the other
};

void sum_terms(const at::Tensor& terms, at::Tensor out, Reduction reduction) {
  if (reduction == Reduction::max)
    at::amax_out(out, terms, {0});
  else if (reduction == Reduction::min)
    at::amin_out(out, terms, {0});
  else
    at::sum_out(out, terms, {0}, false, out.scalar_type());
}

}    // namespace

struct Collective::Impl {
  struct Operand {
    Group group;
    DType dtype = DType::fp32;
    Reduction reduction = Reduction::sum;
    bool keeps = true;             // slice, to_partial: this rank has a part
    std::vector<Traffic> steps;    // one after the other; an all_reduce of its own has two, the second from and to the output
    std::int64_t sum_scratch = 0, sum_offset = 0;
    // What the transport does by itself, of equal pieces that stand one after the other: no staging, no sum of ours.
    enum class Native { none, all_reduce, reduce_scatter, all_gather } native = Native::none;
  };
  std::string op, what;
  Transport& transport;
  std::vector<Operand> operands;
  std::vector<Group> groups;
  DeviceKind device;
  std::int64_t scratch = 0;

  Impl(Transport& t, std::string op_name, std::string w, DeviceKind d)
      : op(std::move(op_name)), what(std::move(w)), transport(t), device(d) {}

  std::int64_t take(std::int64_t bytes) {
    const std::int64_t at = scratch;
    scratch = aligned(scratch + bytes);
    return at;
  }
  void stage(Traffic& traffic, DType dtype) {
    const auto bytes = [&](const Piece& piece) { return count(piece.part) * size_bytes(dtype); };
    for (Piece& piece : traffic.send)
      if (!is_run(traffic.source, piece.part)) piece.staged = take(bytes(piece));
    if (traffic.sums) {
      std::int64_t all = 0;
      for (Piece& piece : traffic.recv) piece.staged = std::exchange(all, all + bytes(piece));
      traffic.terms = take(all);
      for (Piece& piece : traffic.recv) piece.staged += traffic.terms;
    } else {
      for (Piece& piece : traffic.recv)
        if (!is_run(traffic.target, piece.part)) piece.staged = take(bytes(piece));
    }
  }
  // ATen may take room of its own to sum; how much is found out here.
  void measure_sum(Operand& operand, const Traffic& traffic, Sums sums) {
    const std::int64_t k = static_cast<std::int64_t>(operand.group.size());
    std::int64_t n = count(traffic.target);
    if (n == 0) return;
    if (sums == Sums::small) n = std::min(n, std::max<std::int64_t>(2, (1 << 20) / k));
    const auto options = at::TensorOptions().dtype(scalar_type(operand.dtype)).device(device == DeviceKind::cpu ? at::kCPU : at::kCUDA);
    at::Tensor terms = at::empty({k, n}, options), out = at::empty({n}, options);
    const ScratchScope scope(device, nullptr, 0);
    sum_terms(terms, out, operand.reduction);
    operand.sum_scratch = aligned(scope.peak());
    operand.sum_offset = take(operand.sum_scratch);
  }

  // What goes out, and then what came in, is put where it belongs. Between the two calls nothing may have been written yet.
  void send(const Operand& operand, const Traffic& traffic, const at::Tensor& in, const at::Tensor& out, char* at_scratch) const;
  void receive(const Operand& operand, const Traffic& traffic, at::Tensor out, char* at_scratch) const;
};

Group group_of(const Mesh& mesh, const std::vector<Atom>& over, std::int64_t rank) {
  Group group;
  const std::int64_t k = mesh.size(over);
  std::vector<std::int64_t> stride(mesh.atoms.size(), 1);
  for (std::size_t a = mesh.atoms.size(); a-- > 1;) stride[a - 1] = stride[a] * mesh.atoms[a].size;
  for (std::int64_t i = 0; i < k; ++i) {
    std::int64_t peer = rank, rest = i;
    for (std::size_t j = over.size(); j-- > 0;) {
      const Atom atom = over[j];
      const std::int64_t size = mesh.atoms[atom].size;
      peer += (rest % size - mesh.coordinate(rank, atom)) * stride[atom];
      rest /= size;
    }
    group.push_back(static_cast<int>(peer));
  }
  return group;
}

namespace {

// What a rank holds: of a flat placement, as a range of the flattened box.
Ranges held_by(const Type& type, const Placement& placement, bool flat, const Mesh& mesh, std::int64_t rank) {
  if (!flat) return local_box(type.shape, placement, mesh, rank);
  return {local_flat(type.shape, placement, mesh, rank)};
}

}    // namespace

Collective::Collective(const Graph& graph, const Node& node, Transport& transport, std::string what, DeviceKind device, Sums sums)
    : impl_(std::make_unique<Impl>(transport, std::string(node.op->name), std::move(what), device)) {
  Impl& m = *impl_;
  const Mesh& mesh = graph.mesh;
  const std::int64_t rank = transport.rank();
  for (std::size_t i = 0; i < node.in.size(); ++i) {
    const Type &from = graph.type(node.in[i]), &to = graph.type(node.out[i]);
    SHEAF_CHECK(from.routed == 0 || m.op == "to_partial", "{}: rows of experts are no box of what they are of", m.op);
    const std::vector<Atom> over = atoms_between(mesh, from.placement, to.placement);
    const bool flat = !from.placement.flat.empty() || !to.placement.flat.empty();
    Impl::Operand o{.group = group_of(mesh, over, rank), .dtype = from.dtype, .reduction = from.placement.reduction};
    const auto source = [&](int r) { return held_by(from, from.placement, flat, mesh, r); };
    const auto target = [&](int r) { return held_by(to, to.placement, flat, mesh, r); };
    const int self = static_cast<int>(rank);
    Traffic t{.source = source(self), .target = target(self)};
    if (m.op == "to_partial") {
      o.keeps = o.group[0] == self;
    } else if (m.op == "slice") {
      t.send.push_back({t.target});
    } else if (m.op == "all_reduce") {
      const std::int64_t n = count(t.source), k = static_cast<std::int64_t>(o.group.size());
      t.source = t.target = {{0, n}};
      t.sums = true;
      if (transport.reduces()) o.native = Impl::Operand::Native::all_reduce;    // as one piece
      if (transport.reduces() || n * k * size_bytes(o.dtype) <= kSmallAllReduce) {
        for (std::int64_t j = 0; j < k; ++j) t.send.push_back({t.source}), t.recv.push_back({t.source});
      } else {
        const auto member = std::find(o.group.begin(), o.group.end(), self) - o.group.begin();
        t.target = {piece(n, k, member)};
        Traffic gather{.source = t.target, .target = t.source};
        for (std::int64_t j = 0; j < k; ++j) {
          t.send.push_back({{piece(n, k, j)}}), t.recv.push_back({t.target});
          gather.send.push_back({gather.source}), gather.recv.push_back({{piece(n, k, j)}});
        }
        o.steps = {t, gather};
      }
    } else {
      t.sums = m.op == "reduce_scatter";
      for (const int peer : o.group) t.send.push_back({common(t.source, target(peer))}), t.recv.push_back({common(source(peer), t.target)});
    }
    if (o.steps.empty()) o.steps = {t};
    if (transport.reduces() && o.steps.size() == 1) {
      const auto equal_runs = [&](const std::vector<Piece>& pieces, const Ranges& held) {
        for (std::size_t j = 0; j < pieces.size(); ++j)
          if (!is_run(held, pieces[j].part) || count(pieces[j].part) * static_cast<std::int64_t>(j) != offset_in(held, pieces[j].part))
            return false;
        return count(pieces[0].part) * static_cast<std::int64_t>(pieces.size()) == count(held);
      };
      if (m.op == "reduce_scatter" && equal_runs(o.steps[0].send, t.source)) o.native = Impl::Operand::Native::reduce_scatter;
      if (m.op == "all_gather" && equal_runs(o.steps[0].recv, t.target)) o.native = Impl::Operand::Native::all_gather;
    }
    if (o.native == Impl::Operand::Native::none)
      for (Traffic& traffic : o.steps) {
        if (!traffic.recv.empty()) m.stage(traffic, o.dtype);
        if (traffic.sums) m.measure_sum(o, traffic, sums);
      }
    if (m.op != "to_partial" && m.op != "slice") m.groups.push_back(o.group);
    m.operands.push_back(std::move(o));
  }
}
Collective::~Collective() = default;
Collective::Collective(Collective&&) noexcept = default;

std::int64_t Collective::scratch_bytes() const { return impl_->scratch; }
const std::vector<Group>& Collective::groups() const { return impl_->groups; }

namespace {

at::Tensor staged(const Piece& piece, const at::Tensor& like, char* at_scratch) {
  Shape shape;
  for (const auto& [begin, end] : piece.part) shape.push_back(end - begin);
  return at::from_blob(at_scratch + piece.staged, shape, like.options());
}

// A flat cut and an all_reduce see the piece as one dim.
at::Tensor seen_as(const at::Tensor& t, const Ranges& held) { return held.size() == static_cast<std::size_t>(t.dim()) ? t : t.view({-1}); }

}    // namespace

void Collective::Impl::send(const Operand& operand, const Traffic& traffic, const at::Tensor& in, const at::Tensor& out,
                            char* at_scratch) const {
  const std::int64_t element = size_bytes(operand.dtype);
  std::vector<ConstBytes> outgoing;
  std::vector<Bytes> incoming;
  for (const Piece& piece : traffic.send) {
    if (piece.staged >= 0) staged(piece, in, at_scratch).copy_(part_of(in, traffic.source, piece.part));
    const char* from = piece.staged >= 0 ? at_scratch + piece.staged
                                         : static_cast<const char*>(in.data_ptr()) + offset_in(traffic.source, piece.part) * element;
    outgoing.push_back({from, count(piece.part) * element});
  }
  for (const Piece& piece : traffic.recv) {
    char* to = piece.staged >= 0 ? at_scratch + piece.staged
                                 : static_cast<char*>(out.data_ptr()) + offset_in(traffic.target, piece.part) * element;
    incoming.push_back({to, count(piece.part) * element});
  }
  transport.exchange(operand.group, outgoing, incoming, what);
}

void Collective::Impl::receive(const Operand& operand, const Traffic& traffic, at::Tensor out, char* at_scratch) const {
  if (!traffic.sums) {
    for (const Piece& piece : traffic.recv)
      if (piece.staged >= 0 && count(piece.part) > 0) part_of(out, traffic.target, piece.part).copy_(staged(piece, out, at_scratch));
    return;
  }
  if (out.numel() == 0) return;
  Shape shape = out.sizes().vec();
  shape.insert(shape.begin(), static_cast<std::int64_t>(operand.group.size()));
  const ScratchScope scope(device, at_scratch + operand.sum_offset, operand.sum_scratch);
  sum_terms(at::from_blob(at_scratch + traffic.terms, shape, out.options()), out, operand.reduction);
}

void Collective::run(std::span<const at::Tensor> in, std::span<at::Tensor> out, void* scratch) const {
  using Native = Impl::Operand::Native;
  const Impl& m = *impl_;
  char* const base = static_cast<char*>(scratch);
  const auto x_of = [&](std::size_t i) { return seen_as(in[i], m.operands[i].steps[0].source); };
  const auto y_of = [&](std::size_t i) { return seen_as(out[i], m.operands[i].steps.back().target); };
  // Behind the first of two steps a rank holds its chunk of the output.
  const auto first_output = [&](std::size_t i) {
    const Impl::Operand& o = m.operands[i];
    return o.steps.size() == 1 ? y_of(i) : part_of(y_of(i), o.steps[1].target, o.steps[0].target);
  };
  if (m.op == "to_partial" || m.op == "slice") {
    for (std::size_t i = 0; i < m.operands.size(); ++i) {
      const Impl::Operand& o = m.operands[i];
      if (m.op == "slice")
        y_of(i).copy_(part_of(x_of(i), o.steps[0].source, o.steps[0].target));
      else
        o.keeps ? out[i].copy_(in[i]) : out[i].zero_();
    }
    return;
  }
  m.transport.begin_batch();
  for (std::size_t i = 0; i < m.operands.size(); ++i) {
    const Impl::Operand& o = m.operands[i];
    const at::Tensor x = x_of(i), y = first_output(i);
    switch (o.native) {
      case Native::none:
        m.send(o, o.steps[0], x, y, base);
        break;
      case Native::all_reduce:
        y.copy_(x);
        m.transport.all_reduce(o.group, y.data_ptr(), y.numel(), o.dtype, o.reduction, m.what);
        break;
      case Native::reduce_scatter:
        m.transport.reduce_scatter(o.group, x.data_ptr(), y.data_ptr(), y.numel(), o.dtype, o.reduction, m.what);
        break;
      case Native::all_gather:
        m.transport.all_gather(o.group, x.data_ptr(), y.data_ptr(), x.numel() * size_bytes(o.dtype), m.what);
        break;
    }
  }
  m.transport.end_batch();
  for (std::size_t i = 0; i < m.operands.size(); ++i) {
    const Impl::Operand& o = m.operands[i];
    if (o.native != Native::none) continue;
    m.receive(o, o.steps[0], first_output(i), base);
    if (o.steps.size() == 1) continue;
    m.send(o, o.steps[1], first_output(i), y_of(i), base);
    m.receive(o, o.steps[1], y_of(i), base);
  }
}

}    // namespace sheaf
