// Every box function against loops over the elements.
#include "mesh/boxes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

using namespace sheaf;

namespace {

// The indices of a box's elements, row-major.
std::vector<Shape> elements_of(const Box& box) {
  std::vector<Shape> out = {{}};
  for (const auto& [begin, end] : box) {
    std::vector<Shape> longer;
    for (const Shape& index : out)
      for (std::int64_t i = begin; i < end; ++i) {
        longer.push_back(index);
        longer.back().push_back(i);
      }
    out = std::move(longer);
  }
  return out;
}

void every_range_is_its_elements(const Box& piece) {
  const auto all = elements_of(piece);
  const auto count = static_cast<std::int64_t>(all.size());
  ASSERT_EQ(num_elements(piece), count);
  for (std::int64_t begin = 0; begin <= count; ++begin)
    for (std::int64_t end = begin; end <= count; ++end) {
      const std::vector<Box> boxes = boxes_of_flat(piece, begin, end);
      ASSERT_LE(boxes.size(), std::max<std::size_t>(1, 2 * piece.size() - (piece.empty() ? 0 : 1)));
      std::vector<Shape> found;
      for (const Box& box : boxes) {
        const auto elements = elements_of(box);
        ASSERT_FALSE(elements.empty());
        found.insert(found.end(), elements.begin(), elements.end());
      }
      ASSERT_TRUE(std::equal(found.begin(), found.end(), all.begin() + begin, all.begin() + end))
          << "[" << begin << ", " << end << ") of " << count;
    }
}

void for_all_shapes(std::size_t ndim, std::int64_t max_extent, Box& box) {
  if (box.size() == ndim) return every_range_is_its_elements(box);
  for (std::int64_t extent = 0; extent <= max_extent; ++extent) {
    const auto offset = static_cast<std::int64_t>(2 * box.size() + 1);    // a piece does not begin at 0
    box.emplace_back(offset, offset + extent);
    for_all_shapes(ndim, max_extent, box);
    box.pop_back();
  }
}

std::optional<std::pair<std::size_t, std::size_t>> overlap_by_elements(const std::vector<Box>& boxes) {
  std::set<Shape> seen;
  std::size_t total = 0;
  for (const Box& box : boxes)
    for (const Shape& index : elements_of(box)) seen.insert(index), ++total;
  if (seen.size() == total) return std::nullopt;
  return std::pair<std::size_t, std::size_t>();
}

}    // namespace

TEST(Boxes, every_flat_range_of_every_small_piece_is_its_boxes_in_order) {
  constexpr std::int64_t kMaxExtent[] = {1, 9, 5, 3, 3, 2};    // by number of dims
  Box box;
  for (std::size_t ndim = 0; ndim <= 5; ++ndim) for_all_shapes(ndim, kMaxExtent[ndim], box);
}

TEST(Boxes, the_bound_on_the_number_of_boxes_is_reached) {
  EXPECT_EQ(boxes_of_flat(whole_box({3, 3, 3, 3, 3}), 1, 242).size(), 9u);
  EXPECT_EQ(boxes_of_flat({{0, 3}, {4, 8}}, 2, 9), (std::vector<Box>{{{0, 1}, {6, 8}}, {{1, 2}, {4, 8}}, {{2, 3}, {4, 5}}}));
}

TEST(Boxes, overlaps_are_found_and_nothing_else) {
  std::mt19937 random(1);
  int overlapping = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::size_t ndim = random() % 4;
    std::vector<Box> boxes(1 + random() % 6);
    for (Box& box : boxes)
      for (std::size_t dim = 0; dim < ndim; ++dim) {
        const std::int64_t a = random() % 8, b = random() % 8;
        box.emplace_back(std::min(a, b), std::max(a, b));
      }
    const auto found = find_overlap(boxes);
    ASSERT_EQ(found.has_value(), overlap_by_elements(boxes).has_value()) << round;
    if (!found) continue;
    ++overlapping;
    EXPECT_LT(found->first, found->second);
    EXPECT_TRUE(common_part(boxes[found->first], boxes[found->second]));
  }
  EXPECT_GT(overlapping, 200);
  EXPECT_LT(overlapping, 1800);
}

TEST(Boxes, a_tiling_that_no_plane_divides_is_disjoint_and_one_step_wider_it_is_not) {
  std::vector<Box> pinwheel = {{{0, 1}, {0, 2}}, {{0, 2}, {2, 3}}, {{2, 3}, {1, 3}}, {{1, 3}, {0, 1}}, {{1, 2}, {1, 2}}};
  EXPECT_FALSE(find_overlap(pinwheel));
  pinwheel[0][1].second = 3;
  EXPECT_EQ(find_overlap(pinwheel), (std::pair<std::size_t, std::size_t>(0, 1)));
}

TEST(Boxes, flat_ranges_of_many_pieces_are_found_disjoint_at_once) {
  // 64 pieces of 512 ranges: what the square of their number would take minutes for.
  std::vector<Box> boxes;
  for (std::int64_t i = 0; i < 64; ++i) {
    const Box part = {piece(4, 2, i % 2), piece(1000, 4, i / 2 % 4), piece(512, 8, i / 8)};
    for (std::int64_t c = 0; c < 512; ++c) {
      const auto [begin, end] = piece(num_elements(part), 512, c);
      for (Box& box : boxes_of_flat(part, begin, end)) boxes.push_back(std::move(box));
    }
  }
  std::shuffle(boxes.begin(), boxes.end(), std::mt19937(2));
  EXPECT_GT(boxes.size(), 64u * 512);
  EXPECT_FALSE(find_overlap(boxes));
  boxes.push_back(boxes[boxes.size() / 2]);
  EXPECT_EQ(find_overlap(boxes), std::pair((boxes.size() - 1) / 2, boxes.size() - 1));
}
