#pragma once
// Boxes of a tensor: flat ranges as boxes, common parts, overlaps. Pure arithmetic.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "mesh/placement.h"

namespace sheaf {

Box whole_box(const Shape& shape);
Shape shape_of(const Box& box);
std::int64_t num_elements(const Box& box);    // 1 without dims

// The common part of two boxes of one tensor; nothing if it has no element.
std::optional<Box> common_part(const Box& a, const Box& b);

// The elements [begin, end) of a local box in its row-major order, as boxes of the global tensor: at most max(1, 2 ndim - 1), none for an
// empty range. In order of storage: the boxes one after the other, each row-major, are the elements of the range in their order.
//   piece [0, 3) x [4, 8), range [2, 9)    ->    [0, 1) x [6, 8)    [1, 2) x [4, 8)    [2, 3) x [4, 5)
std::vector<Box> boxes_of_flat(const Box& piece, std::int64_t begin, std::int64_t end);

// Indices (ascending) of two boxes of one tensor that have an element in common; nothing: they are disjoint. About n log n for what meshes
// make (grids, and flat ranges of pieces); a tiling that no plane divides costs its number of boxes squared.
std::optional<std::pair<std::size_t, std::size_t>> find_overlap(const std::vector<Box>& boxes);

}    // namespace sheaf
