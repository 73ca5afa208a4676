#include "mesh/placement.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {

std::int64_t num_elements(const Shape& shape) {
  std::int64_t n = 1;
  for (const std::int64_t extent : shape) n *= extent;
  return n;
}

std::int64_t Mesh::num_ranks() const {
  std::int64_t n = 1;
  for (const AtomInfo& atom : atoms) n *= atom.size;
  return n;
}

std::int64_t Mesh::coordinate(std::int64_t rank, Atom atom) const {
  for (std::size_t i = atoms.size() - 1; i > atom; --i) rank /= atoms[i].size;
  return rank % atoms[atom].size;
}

const std::vector<Atom>& Mesh::axis(std::string_view name) const {
  static const std::vector<Atom> none;
  for (const Axis& axis : axes)
    if (axis.name == name) return axis.atoms;
  return none;
}

std::int64_t Mesh::size(const std::vector<Atom>& of) const {
  std::int64_t n = 1;
  for (const Atom atom : of) n *= atoms[atom].size;
  return n;
}

std::uint32_t mask(const std::vector<Atom>& atoms) {
  std::uint32_t m = 0;
  for (const Atom atom : atoms) m |= std::uint32_t{1} << atom;
  return m;
}

std::uint32_t Placement::cut() const {
  std::uint32_t m = mask(flat);
  for (const auto& atoms : dims) m |= mask(atoms);
  return m;
}

const std::vector<Atom>& Placement::dim(std::size_t d) const {
  static const std::vector<Atom> none;
  return d < dims.size() ? dims[d] : none;
}

bool same(const Placement& a, const Placement& b) {
  for (std::size_t d = 0; d < std::max(a.dims.size(), b.dims.size()); ++d)
    if (a.dim(d) != b.dim(d)) return false;
  return a.flat == b.flat && a.partial == b.partial && (a.partial == 0 || a.reduction == b.reduction);
}

bool Placement::replicated() const {
  return partial == 0 && flat.empty() && std::all_of(dims.begin(), dims.end(), [](const auto& atoms) { return atoms.empty(); });
}

std::pair<std::int64_t, std::int64_t> piece(std::int64_t n, std::int64_t num_pieces, std::int64_t c) {
  return {c * n / num_pieces, (c + 1) * n / num_pieces};
}

Box local_box(const Shape& shape, const Placement& placement, const Mesh& mesh, std::int64_t rank) {
  Box box;
  for (std::size_t dim = 0; dim < shape.size(); ++dim) {
    std::int64_t num_pieces = 1, c = 0;
    if (dim < placement.dims.size())
      for (const Atom atom : placement.dims[dim]) {
        num_pieces *= mesh.atoms[atom].size;
        c = c * mesh.atoms[atom].size + mesh.coordinate(rank, atom);
      }
    box.push_back(piece(shape[dim], num_pieces, c));
  }
  return box;
}

std::pair<std::int64_t, std::int64_t> flat_piece(std::int64_t n, std::int64_t num_pieces, std::int64_t c) {
  const auto [begin, end] = piece((n + kFlatGranule - 1) / kFlatGranule, num_pieces, c);
  return {std::min(n, begin * kFlatGranule), std::min(n, end * kFlatGranule)};
}

std::pair<std::int64_t, std::int64_t> local_flat(const Shape& shape, const Placement& placement, const Mesh& mesh, std::int64_t rank) {
  std::int64_t n = 1, num_pieces = 1, c = 0;
  for (const auto& [begin, end] : local_box(shape, placement, mesh, rank)) n *= end - begin;
  for (const Atom atom : placement.flat) {
    num_pieces *= mesh.atoms[atom].size;
    c = c * mesh.atoms[atom].size + mesh.coordinate(rank, atom);
  }
  return num_pieces == 1 ? std::pair<std::int64_t, std::int64_t>{0, n} : flat_piece(n, num_pieces, c);
}

Shape local_shape(const Shape& shape, const Placement& placement, const Mesh& mesh, std::int64_t rank) {
  if (!placement.flat.empty()) {
    const auto [begin, end] = local_flat(shape, placement, mesh, rank);
    return {end - begin};
  }
  Shape local;
  for (const auto& [begin, end] : local_box(shape, placement, mesh, rank)) local.push_back(end - begin);
  return local;
}

Shape largest_local_shape(const Shape& shape, const Placement& placement, const Mesh& mesh) {
  Shape local = shape;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    const std::int64_t k = mesh.size(placement.dim(d));
    local[d] = (shape[d] + k - 1) / k;
  }
  if (placement.flat.empty()) return local;
  const std::int64_t n = num_elements(local), k = mesh.size(placement.flat), granules = (n + kFlatGranule - 1) / kFlatGranule;
  return {std::min(n, (granules + k - 1) / k * kFlatGranule)};
}

static constexpr std::string_view kReductions[] = {"", "max ", "min "};

std::string print(const Placement& placement, const Mesh& mesh, std::size_t ndim) {
  if (mesh.atoms.empty()) return "";
  std::vector<std::string> dims;
  for (std::size_t dim = 0; dim < ndim; ++dim) {
    std::vector<std::string> names;
    if (dim < placement.dims.size())
      for (const Atom atom : placement.dims[dim]) names.push_back(mesh.atoms[atom].name);
    dims.push_back(names.empty() ? "." : join(names, "."));
  }
  std::string text = "[" + join(dims, "|") + "]";
  const char* separator = " +";
  for (const Atom atom : placement.flat) text += std::exchange(separator, ".") + mesh.atoms[atom].name;
  if (placement.partial != 0) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < mesh.atoms.size(); ++i)
      if (placement.partial >> i & 1) names.push_back(mesh.atoms[i].name);
    text += fmt::format(" partial({}{})", kReductions[static_cast<int>(placement.reduction)], join(names, "."));
  }
  return text;
}

static Atom atom_named(std::string_view name, const Mesh& mesh) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < mesh.atoms.size(); ++i) {
    if (mesh.atoms[i].name == name) return static_cast<Atom>(i);
    names.push_back(mesh.atoms[i].name);
  }
  user_error("no atom {} in the mesh; it has {}", quote(name), names.empty() ? "none" : join(names, ", "));
}

Placement parse_placement(std::string_view text, const Mesh& mesh, std::size_t ndim) {
  Placement placement;
  text = trimmed(text);
  if (text.empty()) return placement;
  const std::size_t close = text.find(']');
  if (text.front() != '[' || close == std::string_view::npos) user_error("placement {}: wanted [atoms|atoms|.]", quote(text));
  const auto dims = split(text.substr(1, close - 1), '|');
  if (dims.size() != ndim) user_error("placement {} has {} dims, the value has {}", quote(text), dims.size(), ndim);
  for (const std::string& dim : dims) {
    placement.dims.emplace_back();
    if (trimmed(dim) == ".") continue;
    for (const std::string& name : split(trimmed(dim), '.')) placement.dims.back().push_back(atom_named(trimmed(name), mesh));
  }
  if (placement.replicated()) placement.dims.clear();
  std::string_view rest = trimmed(text.substr(close + 1));
  if (rest.starts_with("+")) {
    const std::size_t end = std::min(rest.find(' '), rest.size());
    for (const std::string& name : split(rest.substr(1, end - 1), '.')) placement.flat.push_back(atom_named(trimmed(name), mesh));
    rest = trimmed(rest.substr(end));
  }
  if (rest.empty()) return placement;
  if (!rest.starts_with("partial(") || rest.back() != ')')
    user_error("placement {}: wanted +atoms, partial(atoms) after the dims", quote(text));
  rest = rest.substr(8, rest.size() - 9);
  for (const Reduction r : {Reduction::max, Reduction::min})
    if (const auto word = kReductions[static_cast<int>(r)]; rest.starts_with(word))
      placement.reduction = r, rest.remove_prefix(word.size());
  for (const std::string& name : split(rest, '.')) placement.partial |= 1u << atom_named(trimmed(name), mesh);
  return placement;
}

std::string print(const Mesh& mesh) {
  if (mesh.atoms.empty()) return "";
  std::string text = "mesh";
  for (const auto& atom : mesh.atoms) text += fmt::format(" {}={}", atom.name, atom.size);
  if (!mesh.axes.empty()) text += "    axes";
  for (const auto& axis : mesh.axes) {
    std::vector<std::string> names;
    for (const Atom atom : axis.atoms) names.push_back(mesh.atoms[atom].name);
    text += fmt::format(" {}={}", axis.name, names.empty() ? "." : join(names, "."));
  }
  return text;
}

Mesh parse_mesh(std::string_view text) {
  Mesh mesh;
  bool in_axes = false;
  for (const std::string& word : split(trimmed(text), ' ')) {
    if (word.empty() || word == "mesh") continue;
    if (word == "axes") {
      in_axes = true;
      continue;
    }
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) user_error("mesh: wanted name=value, found {}", quote(word));
    const std::string name = word.substr(0, equals), value = word.substr(equals + 1);
    if (in_axes) {
      mesh.axes.push_back({name, {}});
      if (value != ".")
        for (const std::string& atom : split(value, '.')) mesh.axes.back().atoms.push_back(atom_named(atom, mesh));
    } else {
      std::int64_t size = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), size);
      if (error != std::errc() || end != value.data() + value.size() || size < 1)
        user_error("mesh: size of atom {} is {}; wanted an integer >= 1", quote(name), quote(value));
      mesh.atoms.push_back({name, size});
    }
  }
  if (mesh.atoms.size() > 32) user_error("mesh: {} atoms; at most 32", mesh.atoms.size());
  return mesh;
}

std::string axes_of(const Mesh& mesh, const std::vector<Atom>& atoms) {
  std::uint32_t left = mask(atoms);
  std::vector<std::string> names;
  for (const Mesh::Axis& axis : mesh.axes) {
    const std::uint32_t all = mask(axis.atoms), here = all & left;
    if (here == 0) continue;
    left &= ~here;
    std::vector<std::string> part;
    for (const Atom atom : axis.atoms)
      if (here >> atom & 1) part.push_back(mesh.atoms[atom].name);
    names.push_back(here == all ? axis.name : fmt::format("{}({})", axis.name, join(part, ".")));
  }
  for (std::size_t a = 0; a < mesh.atoms.size(); ++a)
    if (left >> a & 1) names.push_back(mesh.atoms[a].name);
  return "over " + join(names, ".");
}

}    // namespace sheaf
