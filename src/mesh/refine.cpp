#include "mesh/refine.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

std::int64_t product(const std::vector<Degree>& degrees) {
  std::int64_t n = 1;
  for (const Degree& d : degrees) n *= d.size;
  return n;
}

std::string text(const std::vector<Degree>& degrees) {
  std::vector<std::string> parts;
  for (const Degree& d : degrees) parts.push_back(d.axis + std::to_string(d.size));
  return join(parts, " ");
}

// Cut points of a factorisation: products of its minor ends.
void add_cuts(const std::vector<Degree>& degrees, std::set<std::int64_t>& cuts) {
  std::int64_t n = 1;
  for (auto d = degrees.rbegin(); d != degrees.rend(); ++d) cuts.insert(n *= d->size);
}

bool nests(const std::set<std::int64_t>& cuts) {
  std::int64_t before = 1;
  for (const std::int64_t cut : cuts) {
    if (cut % before != 0) return false;
    before = cut;
  }
  return true;
}

std::optional<std::set<std::int64_t>> common_cuts(const std::vector<Degree>& dense, const std::vector<Degree>& expert,
                                                  const std::vector<std::int64_t>& wishes) {
  std::set<std::int64_t> cuts = {1};
  add_cuts(dense, cuts);
  add_cuts(expert, cuts);
  if (!nests(cuts)) return std::nullopt;
  for (const std::int64_t cut : wishes) {
    std::set<std::int64_t> finer = cuts;
    finer.insert(cut);
    if (nests(finer) && product(dense) % cut == 0) cuts = std::move(finer);
  }
  return cuts;
}

// Axes of a factorisation as sets of atoms. sizes: atoms major to minor.
void add_axes(const std::vector<Degree>& degrees, Mesh& mesh) {
  std::size_t atom = 0;
  for (const Degree& d : degrees) {
    Mesh::Axis axis{d.axis, {}};
    for (std::int64_t size = 1; size < d.size; ++atom) {
      axis.atoms.push_back(static_cast<Atom>(atom));
      size *= mesh.atoms[atom].size;
    }
    mesh.axes.push_back(std::move(axis));
  }
}

// Sizes of the first axis that could stand in its place, the last one taking up the difference.
std::string proposal(const std::vector<Degree>& dense, std::vector<Degree> expert, const std::vector<std::int64_t>& wishes) {
  const std::int64_t n = product(dense);
  std::vector<std::string> fitting;
  for (std::int64_t size = 1; size <= n; ++size) {
    if (n % size != 0 || expert.size() < 2) continue;
    std::vector<Degree> other = expert;
    other[0].size = n / size, other[1].size = size;
    for (std::size_t i = 2; i < other.size(); ++i) other[i].size = 1;
    if (common_cuts(dense, other, wishes)) fitting.push_back(std::to_string(size));
  }
  return fitting.empty() ? "" : fmt::format("; {} of {} would fit", expert[1].axis, join(fitting, ", "));
}

}    // namespace

Refinement refine(const std::vector<Degree>& dense, const std::vector<Degree>& expert, const std::vector<std::int64_t>& wishes) {
  if (!expert.empty() && product(dense) != product(expert))
    user_error("{} is {} ranks, {} is {}: both must be the number of ranks", text(dense), product(dense), text(expert), product(expert));
  std::vector<std::size_t> order(expert.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  do {
    std::vector<Degree> tried;
    for (const std::size_t i : order) tried.push_back(expert[i]);
    const auto cuts = common_cuts(dense, tried, wishes);
    if (!cuts) continue;
    Refinement out{{}, tried, tried != expert};
    const std::vector<std::int64_t> points(cuts->begin(), cuts->end());
    if (points.size() > 33) user_error("{}: {} atoms; at most 32", text(dense), points.size() - 1);
    for (std::size_t i = points.size() - 1; i > 0; --i) out.mesh.atoms.push_back({fmt::format("a{}", i - 1), points[i] / points[i - 1]});
    add_axes(dense, out.mesh);
    add_axes(tried, out.mesh);
    return out;
  } while (std::next_permutation(order.begin(), order.end()));
  user_error(
      "{} for attention and {} for experts have no common refinement: no order of the expert axes lets one cut the ranks where the other "
      "does{}",
      text(dense), text(expert), proposal(dense, expert, wishes));
}

}    // namespace sheaf
