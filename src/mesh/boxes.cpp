#include "mesh/boxes.h"

#include <algorithm>
#include <span>

#include "base/error.h"

namespace sheaf {

Box whole_box(const Shape& shape) {
  Box box;
  for (const std::int64_t extent : shape) box.emplace_back(0, extent);
  return box;
}

Shape shape_of(const Box& box) {
  Shape shape;
  for (const auto& [begin, end] : box) shape.push_back(end - begin);
  return shape;
}

std::int64_t num_elements(const Box& box) {
  std::int64_t n = 1;
  for (const auto& [begin, end] : box) n *= end - begin;
  return n;
}

std::optional<Box> common_part(const Box& a, const Box& b) {
  Box common(a.size());
  for (std::size_t dim = 0; dim < a.size(); ++dim) {
    common[dim] = {std::max(a[dim].first, b[dim].first), std::min(a[dim].second, b[dim].second)};
    if (common[dim].first >= common[dim].second) return std::nullopt;
  }
  return common;
}

namespace {

// Elements [begin, end), not empty, of `box`, whose dims before `dim` have extent 1. A row: one index of `dim`.
void append_flat(std::vector<Box>& out, Box box, std::size_t dim, std::int64_t begin, std::int64_t end) {
  if (dim == box.size()) return out.push_back(std::move(box));
  std::int64_t row = 1;    // its elements
  for (std::size_t d = dim + 1; d < box.size(); ++d) row *= box[d].second - box[d].first;
  const auto rows = [&](std::int64_t first, std::int64_t last) {
    Box part = box;
    part[dim] = {box[dim].first + first, box[dim].first + last};
    return part;
  };
  std::int64_t first = begin / row;
  const std::int64_t last = end / row;
  if (begin % row != 0 || first == last) {    // from the middle of a row
    append_flat(out, rows(first, first + 1), dim + 1, begin % row, std::min(end - first * row, row));
    if (first == last) return;
    ++first;
  }
  if (first < last) out.push_back(rows(first, last));
  if (end % row != 0) append_flat(out, rows(last, last + 1), dim + 1, 0, end % row);
}

}    // namespace

std::vector<Box> boxes_of_flat(const Box& piece, std::int64_t begin, std::int64_t end) {
  SHEAF_CHECK(begin >= 0 && begin <= end && end <= num_elements(piece), "elements [{}, {}) of a piece of {}", begin, end,
              num_elements(piece));
  std::vector<Box> out;
  if (begin < end) append_flat(out, piece, 0, begin, end);
  return out;
}

std::optional<std::pair<std::size_t, std::size_t>> find_overlap(const std::vector<Box>& boxes) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < boxes.size(); ++i)
    if (num_elements(boxes[i]) > 0) order.push_back(i);
  if (order.empty()) return std::nullopt;
  const std::size_t ndim = boxes[order.front()].size();
  // Planes across `dim` that no box of a group crosses divide it; boxes of two groups are disjoint. A group that none of the dims divides
  // is compared pair by pair. A stack, not recursion: a damaged index may nest as deeply as it has boxes.
  struct Group {
    std::span<std::size_t> members;
    std::size_t dim, undivided;    // undivided: how many dims before `dim` were tried since the last division
  };
  std::vector<Group> groups = {{order, 0, 0}};
  while (!groups.empty()) {
    const auto [members, dim, undivided] = groups.back();
    groups.pop_back();
    if (undivided == ndim) {
      for (std::size_t i = 0; i < members.size(); ++i)
        for (std::size_t j = 0; j < i; ++j)
          if (common_part(boxes[members[i]], boxes[members[j]])) return std::minmax(members[i], members[j]);
      continue;
    }
    std::sort(members.begin(), members.end(), [&, d = dim](std::size_t a, std::size_t b) { return boxes[a][d].first < boxes[b][d].first; });
    for (std::size_t begin = 0, end = 0; begin < members.size(); begin = end) {
      std::int64_t reach = boxes[members[begin]][dim].second;
      for (end = begin + 1; end < members.size() && boxes[members[end]][dim].first < reach; ++end)
        reach = std::max(reach, boxes[members[end]][dim].second);
      if (end - begin > 1)
        groups.push_back({members.subspan(begin, end - begin), (dim + 1) % ndim, end - begin == members.size() ? undivided + 1 : 1});
    }
  }
  return std::nullopt;
}

}    // namespace sheaf
