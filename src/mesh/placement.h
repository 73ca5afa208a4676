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
  bool operator==(const Mesh&) const = default;
};

enum class Reduction : std::uint8_t { sum, max, min };

// Per dim: ordered atoms (major to minor). partial: atoms over which the true value is the reduction of what the ranks hold.
// Every atom that is in neither: replicated. An empty `dims` means replicated whatever the number of dims.
struct Placement {
  std::vector<std::vector<Atom>> dims;
  std::uint32_t partial = 0;    // bit i: atom i
  Reduction reduction = Reduction::sum;

  bool replicated() const;
  bool operator==(const Placement&) const = default;
};

// Piece c of K of a dim of extent n: [floor(c n / K), floor((c + 1) n / K)). Nests when atoms are removed from the minor end.
std::pair<std::int64_t, std::int64_t> piece(std::int64_t n, std::int64_t num_pieces, std::int64_t c);

// The half-open range of each dim that `rank` holds.
Box local_box(const Shape& shape, const Placement& placement, const Mesh& mesh, std::int64_t rank);
Shape local_shape(const Shape& shape, const Placement& placement, const Mesh& mesh, std::int64_t rank);

// "[a2|a1.a0|.] partial(a0)"; "" on a mesh without atoms. Replicated dims print as '.'.
std::string print(const Placement& placement, const Mesh& mesh, std::size_t ndim);
// Inverse of print; throws UserError.
Placement parse_placement(std::string_view text, const Mesh& mesh, std::size_t ndim);

// "mesh a1=2 a0=4    axes dp=a1 tp=a0"; "" on a mesh without atoms.
std::string print(const Mesh& mesh);
Mesh parse_mesh(std::string_view text);    // throws UserError

std::int64_t num_elements(const Shape& shape);

}    // namespace sheaf
