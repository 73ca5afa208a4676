#pragma once
// Where the pieces of a tensor live on a mesh of ranks: pure arithmetic, no tensors.
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sheaf {

using Atom = std::uint8_t;    // index into Mesh::atoms
using Shape = std::vector<std::int64_t>;
using Box = std::vector<std::pair<std::int64_t, std::int64_t>>;    // a part of a tensor: per dim, half-open

// An indivisible part of the mesh; a rank has one coordinate on each. Atoms are ordered major to minor: the last is the fastest link.
struct Mesh {
  struct AtomInfo {
    std::string name;
    std::int64_t size = 1;
    bool operator==(const AtomInfo&) const = default;
  };
  struct Axis {
    std::string name;
    std::vector<Atom> atoms;    // major to minor
    bool operator==(const Axis&) const = default;
  };
  std::vector<AtomInfo> atoms;
  std::vector<Axis> axes;

  std::int64_t num_ranks() const;
  std::int64_t coordinate(std::int64_t rank, Atom atom) const;
  const std::vector<Atom>& axis(std::string_view name) const;    // no such axis: no atoms
  std::int64_t size(const std::vector<Atom>& atoms) const;       // product of their sizes
  bool operator==(const Mesh&) const = default;
};

enum class Reduction : std::uint8_t { sum, max, min };

// Per dim: ordered atoms (major to minor). partial: atoms over which the true value is the reduction of what the ranks hold.
// Every atom that is in neither: replicated. An empty `dims` means replicated whatever the number of dims.
// flat: the piece that `dims` leave, flattened row-major, is cut once more by these atoms (storage of states: ZeRO).
struct Placement {
  std::vector<std::vector<Atom>> dims;
  std::uint32_t partial = 0;    // bit i: atom i
  Reduction reduction = Reduction::sum;
  std::vector<Atom> flat = {};

  bool replicated() const;
  std::uint32_t cut() const;    // the atoms of dims and flat, bit i: atom i
  const std::vector<Atom>& dim(std::size_t d) const;
  bool operator==(const Placement&) const = default;
};
// The same, whatever the spelling of replicated dims and the reduction of what is not partial.
bool same(const Placement& a, const Placement& b);
std::uint32_t mask(const std::vector<Atom>& atoms);

// Piece c of K of a dim of extent n: [floor(c n / K), floor((c + 1) n / K)). Nests when atoms are removed from the minor end.
std::pair<std::int64_t, std::int64_t> piece(std::int64_t n, std::int64_t num_pieces, std::int64_t c);

// The half-open range of each dim that `rank` holds, before a cut by `flat`.
Box local_box(const Shape& shape, const Placement& placement, const Mesh& mesh, std::int64_t rank);
// Of the flattened local box, in elements, the half-open range that `rank` holds: all of it without `flat`. Cuts lie at multiples of
// kFlatGranule; they nest when atoms are removed from the minor end.
inline constexpr std::int64_t kFlatGranule = 16;
std::pair<std::int64_t, std::int64_t> flat_piece(std::int64_t n, std::int64_t num_pieces, std::int64_t c);
std::pair<std::int64_t, std::int64_t> local_flat(const Shape& shape, const Placement& placement, const Mesh& mesh, std::int64_t rank);
// What `rank` holds: the box's extents, or the length of its flat piece.
Shape local_shape(const Shape& shape, const Placement& placement, const Mesh& mesh, std::int64_t rank);
// The largest piece that a rank holds, dim by dim: no rank holds more in any dim. Buffers have this size on all ranks.
Shape largest_local_shape(const Shape& shape, const Placement& placement, const Mesh& mesh);

// "[a2|a1.a0|.] +a3 partial(a0)"; "" on a mesh without atoms. Replicated dims print as '.'; what follows + cuts the flattened piece.
std::string print(const Placement& placement, const Mesh& mesh, std::size_t ndim);
// Inverse of print; throws UserError.
Placement parse_placement(std::string_view text, const Mesh& mesh, std::size_t ndim);

// "mesh a1=2 a0=4    axes dp=a1 tp=a0"; "" on a mesh without atoms.
std::string print(const Mesh& mesh);
Mesh parse_mesh(std::string_view text);    // throws UserError
// "over dp.tp": the axes that atoms belong to, and the atoms themselves where they are a part of an axis ("over dp(a3)").
std::string axes_of(const Mesh& mesh, const std::vector<Atom>& atoms);

std::int64_t num_elements(const Shape& shape);

}    // namespace sheaf
