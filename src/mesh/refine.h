#pragma once
// From degrees of parallelism to a mesh: the common refinement of the two factorisations of one set of ranks.
#include <cstdint>
#include <string>
#include <vector>

#include "mesh/placement.h"

namespace sheaf {

struct Degree {
  std::string axis;
  std::int64_t size = 1;
  bool operator==(const Degree&) const = default;
};

// Attention sees `dense` (dp, sp, tp), experts see `expert` (edp, ep, etp), each major to minor, over the same ranks: both products are the
// number of ranks. Their cut points from the minor side, sorted, must divide one another; the intervals are the atoms, and every axis is an
// ordered set of them. No `expert` degrees: there are no experts. `wishes`: more cut points, each taken where it nests with those before
// (where heads go from kv heads to query heads; where a shorter storage suffix ends).
//
//   dense dp4 sp2 tp2, expert edp2 ep8   ->  atoms a3=2 a2=2 a1=2 a0=2   dp=a3.a2 sp=a1 tp=a0   edp=a3 ep=a2.a1.a0
//
// Where the order of the expert axes as given has no refinement, the other orders are tried, in lexicographic order of positions. Throws
// UserError naming both factorisations where none has, with degrees that would fit.
struct Refinement {
  Mesh mesh;
  std::vector<Degree> expert;    // in the order that was taken
  bool reordered = false;
};
Refinement refine(const std::vector<Degree>& dense, const std::vector<Degree>& expert, const std::vector<std::int64_t>& wishes = {});

}    // namespace sheaf
