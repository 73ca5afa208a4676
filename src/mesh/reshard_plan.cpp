#include "mesh/reshard_plan.h"

#include <algorithm>
#include <map>
#include <queue>

#include "base/error.h"

namespace sheaf {

std::string_view name(Move move) {
  constexpr std::string_view kNames[] = {"all_gather", "all_to_all", "reduce_scatter", "all_reduce", "slice", "to_partial"};
  return kNames[static_cast<std::size_t>(move)];
}

double sent_bytes(Move move, const std::vector<Atom>& over, const Placement& from, const Shape& shape, std::int64_t element_bytes,
                  const Mesh& mesh) {
  const auto k = static_cast<double>(mesh.size(over));
  const auto held = static_cast<double>(num_elements(largest_local_shape(shape, from, mesh)) * element_bytes);
  switch (move) {
    case Move::all_gather:
      return (k - 1) * held;
    case Move::all_to_all:
    case Move::reduce_scatter:
      return (k - 1) / k * held;
    case Move::all_reduce:
      return 2 * (k - 1) / k * held;
    case Move::slice:
    case Move::to_partial:
      break;
  }
  return 0;
}

std::vector<Atom> atoms_between(const Mesh& mesh, const Placement& from, const Placement& to) {
  const auto changed = [](std::vector<Atom> a, std::vector<Atom> b) {    // what stands behind the common beginning of the longer one
    if (a.size() < b.size()) std::swap(a, b);
    return std::vector<Atom>(a.begin() + static_cast<std::ptrdiff_t>(b.size()), a.end());
  };
  if (from.flat != to.flat) return changed(from.flat, to.flat);
  for (std::size_t d = 0; d < std::max(from.dims.size(), to.dims.size()); ++d)
    if (from.dim(d) != to.dim(d)) return changed(from.dim(d), to.dim(d));
  std::vector<Atom> over;
  for (std::size_t a = 0; a < mesh.atoms.size(); ++a)
    if ((from.partial ^ to.partial) >> a & 1) over.push_back(static_cast<Atom>(a));
  return over;
}

namespace {

using Atoms = std::vector<Atom>;

constexpr double kCollective = 64 * 1024;    // bytes: about what a link carries in the time that a collective takes to start
constexpr double kLocal = 0.05;              // of the bytes copied

bool is_prefix(const Atoms& prefix, const Atoms& of) {
  return prefix.size() <= of.size() && std::equal(prefix.begin(), prefix.end(), of.begin());
}
Atoms without_tail(const Atoms& atoms, std::size_t n) { return {atoms.begin(), atoms.end() - static_cast<std::ptrdiff_t>(n)}; }
Atoms tail(const Atoms& atoms, std::size_t n) { return {atoms.end() - static_cast<std::ptrdiff_t>(n), atoms.end()}; }
void append(Atoms& to, const Atoms& atoms) { to.insert(to.end(), atoms.begin(), atoms.end()); }

class Search {
 public:
  Search(const Placement& from, const Placement& to, const Shape& shape, std::int64_t element_bytes, const Mesh& mesh)
      : target_(normal(to, shape)), start_(normal(from, shape)), shape_(shape), element_bytes_(element_bytes), mesh_(mesh) {}

  std::vector<ReshardStep> run() {
    best_[key(start_)] = {0, {}, {}};
    queue_.push({0, start_});
    while (!queue_.empty()) {
      const auto [cost, p] = queue_.top();
      queue_.pop();
      if (cost > best_.at(key(p)).cost) continue;
      if (same(p, target_)) return path(p);
      expand(p, cost);
    }
    SHEAF_CHECK(false, "no way from {} to {}", print(start_, mesh_, shape_.size()), print(target_, mesh_, shape_.size()));
  }

 private:
  struct Reached {
    double cost = 0;
    std::string before;
    ReshardStep step{};
  };
  struct Open {
    double cost;
    Placement at;
    bool operator<(const Open& other) const { return cost > other.cost; }
  };

  static Placement normal(Placement p, const Shape& shape) {
    p.dims.resize(shape.size());
    return p;
  }
  std::string key(const Placement& p) const { return print(p, mesh_, shape_.size()); }

  void reach(const Placement& from, double cost, Move move, Atoms over, Placement to) {
    if (to.partial == 0) to.reduction = Reduction::sum;
    const bool local = move == Move::slice || move == Move::to_partial;
    const double bytes = local ? kLocal * static_cast<double>(num_elements(largest_local_shape(shape_, to, mesh_)) * element_bytes_)
                               : kCollective + sent_bytes(move, over, from, shape_, element_bytes_, mesh_);
    const double total = cost + bytes;
    const auto [entry, fresh] = best_.try_emplace(key(to));
    if (!fresh && entry->second.cost <= total) return;
    entry->second = {total, key(from), {move, std::move(over), to}};
    queue_.push({total, to});
  }

  void expand(const Placement& p, double cost) {
    const std::uint32_t cut = p.cut();
    const auto replicated = [&](Atom a) { return !((cut | p.partial) >> a & 1); };
    const std::uint32_t to_reduce = p.partial & ~target_.partial;
    // Out of the flat cut first: dims change only where there is none.
    const bool keeps_flat = is_prefix(p.flat, target_.flat) && dims_done(p);
    if (!p.flat.empty() && !keeps_flat)
      for (std::size_t n = 1; n <= p.flat.size(); ++n) {
        Placement to = p;
        to.flat = without_tail(p.flat, n);
        reach(p, cost, Move::all_gather, tail(p.flat, n), to);
      }
    reduce_all(p, to_reduce, cost);
    if (p.flat.empty())
      for (std::size_t d = 0; d < p.dims.size(); ++d) {
        if (!is_prefix(p.dims[d], target_.dims[d]))
          for (std::size_t n = 1; n <= p.dims[d].size(); ++n) leave(p, d, n, cost);
        grow(p, target_.dims[d], to_reduce, replicated, cost, [d](Placement& to) -> Atoms& { return to.dims[d]; });
      }
    if (dims_done(p)) grow(p, target_.flat, to_reduce, replicated, cost, [](Placement& to) -> Atoms& { return to.flat; });
    const std::uint32_t missing = target_.partial & ~p.partial;
    if (missing != 0 && p.reduction == Reduction::sum) {
      Atoms over;
      for (std::size_t a = 0; a < mesh_.atoms.size(); ++a)
        if ((missing >> a & 1) && replicated(static_cast<Atom>(a))) over.push_back(static_cast<Atom>(a));
      if (!over.empty()) {
        Placement to = p;
        to.partial |= mask(over), to.reduction = target_.reduction;
        reach(p, cost, Move::to_partial, over, to);
      }
    }
  }

  bool dims_done(const Placement& p) const { return p.dims == target_.dims; }

  void reduce_all(const Placement& p, std::uint32_t to_reduce, double cost) {
    // Those that the target cuts could be scattered instead; both ways are tried.
    for (const std::uint32_t which : {to_reduce, to_reduce & ~target_.cut()}) {
      Atoms over;
      for (std::size_t a = 0; a < mesh_.atoms.size(); ++a)
        if (which >> a & 1) over.push_back(static_cast<Atom>(a));
      if (over.empty()) continue;
      Placement to = p;
      to.partial &= ~which;
      reach(p, cost, Move::all_reduce, over, to);
    }
  }

  // The n minor atoms of dim d leave it: become replicated, or go where the target wants them next.
  void leave(const Placement& p, std::size_t d, std::size_t n, double cost) {
    const Atoms atoms = tail(p.dims[d], n);
    Placement to = p;
    to.dims[d] = without_tail(p.dims[d], n);
    reach(p, cost, Move::all_gather, atoms, to);
    for (std::size_t e = 0; e < p.dims.size(); ++e) {
      if (e == d) continue;
      Atoms grown = p.dims[e];
      append(grown, atoms);
      if (!is_prefix(grown, target_.dims[e])) continue;
      Placement moved = to;
      moved.dims[e] = grown;
      reach(p, cost, Move::all_to_all, atoms, moved);
    }
  }

  // The target's next atoms are appended: all partial ones (a reduce-scatter), or all replicated ones (a slice).
  void grow(const Placement& p, const Atoms& wanted, std::uint32_t to_reduce, auto&& replicated, double cost, auto&& place) {
    Placement to = p;
    const std::size_t have = place(to).size();
    if (!is_prefix(place(to), wanted)) return;
    Atoms over;
    for (std::size_t i = have; i < wanted.size(); ++i) {
      const bool partial = to_reduce >> wanted[i] & 1;
      if (!partial && !replicated(wanted[i])) return;
      if (i > have && partial != bool(to_reduce >> wanted[have] & 1)) return;
      over.push_back(wanted[i]);
      place(to).push_back(wanted[i]);
      to.partial &= ~(std::uint32_t{1} << wanted[i]);
      reach(p, cost, partial ? Move::reduce_scatter : Move::slice, over, to);
    }
  }

  std::vector<ReshardStep> path(const Placement& to) const {
    std::vector<ReshardStep> steps;
    for (std::string at = key(to); at != key(start_);) {
      const Reached& reached = best_.at(at);
      steps.push_back(reached.step);
      at = reached.before;
    }
    std::reverse(steps.begin(), steps.end());
    return steps;
  }

  Placement target_, start_;
  const Shape& shape_;
  std::int64_t element_bytes_;
  const Mesh& mesh_;
  std::map<std::string, Reached> best_;
  std::priority_queue<Open> queue_;
};

}    // namespace

std::vector<ReshardStep> plan_reshard(const Placement& from, const Placement& to, const Shape& shape, std::int64_t element_bytes,
                                      const Mesh& mesh) {
  return Search(from, to, shape, element_bytes, mesh).run();
}

}    // namespace sheaf
